"""Where a report goes: files by their suffix, stdout, and the last line on stderr."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console, RenderableType

from bdaudit.errors import ExitCode, UsageError
from bdaudit.records import Exit, NotMeasured, Report, ScanReport
from bdaudit.report.document import dumps
from bdaudit.report.safe import one_line, visible
from bdaudit.report.streams import lost
from bdaudit.targets import try_file, write_whole

PIPED_WIDTH = 200
"""Columns of a table that goes to no terminal."""
_INERT: dict[str, Any] = {"markup": False, "highlight": False, "emoji": False, "legacy_windows": False}
_LAST_LINE, _END = 299, 60
"""Characters of the last line, and of its end that are kept however long the reason is."""
_MOST_SAID = 4_000
"""Characters of a reason that stands above the last line."""


def _html(report: Report) -> str:
    from bdaudit.report.content.whole import content
    from bdaudit.report.page import page, read_pictures

    shown = content(report)
    return page(shown, read_pictures(shown.pictures))


def _sarif(report: Report) -> str:
    from bdaudit.report.sarif import sarif

    return sarif(report)


def _markdown(report: Report) -> str:
    from bdaudit.report.content.whole import content
    from bdaudit.report.markdown import markdown

    return markdown(content(report))


def _plain(report: Report) -> str:
    return _tables(report, Console(file=io.StringIO(), width=PIPED_WIDTH, force_terminal=False, color_system=None, **_INERT))


def _in_toto(report: Report) -> str:
    from bdaudit.report.in_toto import in_toto

    return in_toto(report)


FORMATS: dict[str, Callable[[Report], str]] = {
    ".json": dumps, ".html": _html, ".sarif": _sarif, ".md": _markdown, ".txt": _plain, ".intoto.json": _in_toto,
}  # fmt: skip
JSON, TABLES = ".json", ".txt"
"""Suffixes that have a meaning of their own: JSON is what programs read, tables what stdout gets where nothing else is asked for,
as wide and as colourful as what reads them."""


def format_of(path: Path) -> str:
    """The longest of the suffixes that its name ends in; empty where it ends in none."""
    name = path.name.lower()
    return max((suffix for suffix in FORMATS if name.endswith(suffix) and name != suffix), key=len, default="")


@dataclass(frozen=True, kw_only=True)
class Output:
    """Where this run's report goes."""

    reports: tuple[Path, ...] = ()
    """Files, each in the format of its suffix."""
    output: Path | None = None
    """One more, of ``-o``."""
    output_as: str = ""
    """The suffix whose format that one has; empty for its own."""
    stdout: str = TABLES
    """The suffix of the format that stdout gets."""
    quiet: bool = False
    """No progress bar, and no word of what begins."""
    verbose: bool = False
    """Each stage, and the traceback of an error that nobody foresaw."""

    def __post_init__(self) -> None:
        for flag, path in self.places:
            if not self.form(path):
                other = ", or name one with --format" if flag == "-o" else ""
                raise UsageError(f"{flag} {path}: the suffix says the format; expected one of {', '.join(FORMATS)}{other}")
            if path.is_dir() or not path.parent.is_dir():
                raise UsageError(f"{flag} {path}: expected a file in a folder that exists")

    @property
    def files(self) -> tuple[Path, ...]:
        """All that are written."""
        return tuple(path for _, path in self.places)

    @property
    def places(self) -> tuple[tuple[str, Path], ...]:
        """The same, each after its flag."""
        return (*(("--report", path) for path in self.reports), *([("-o", self.output)] if self.output else []))

    def form(self, path: Path) -> str:
        """The suffix whose format a file has; empty where its name says none."""
        return (self.output_as if path == self.output else "") or format_of(path)

    def try_out(self) -> None:
        """Try every file that is to be written.

        Raises:
            UsageError: one cannot be, for its name or its place.
            BdauditError: the disk is full, read-only or broken.
        """
        for flag, path in self.places:
            try_file(path, f"{flag} {path}")

    @property
    def where(self) -> str:
        """``scan.json, scan.html``; ``stdout``; ``none``."""
        return ", ".join([*(visible(str(path)) for path in self.files), *(["stdout"] if self.stdout != TABLES else [])]) or "none"


def deliver(report: Report, output: Output, delivered: Callable[[], None] = lambda: None) -> Exit:
    """Writes the files, then stdout; the exit that follows, which is an error where a file could not be written.

    A finding stays one: its exit wins, and its reason says what was not written. What becomes of stdout changes no exit code.
    ``delivered`` is called once every file is there, and stdout's report could be laid out.
    """
    failures = {place: why for place in output.places if (why := _try(partial(write, report, place[1], output.form(place[1]))))}
    if failures:
        report = _after(report, [f"{flag} {path} could not be written: {why}" for (flag, path), why in failures.items()])
        for place in output.places:
            if place not in failures:
                _try(partial(write, report, place[1], output.form(place[1])))  # what is there says how the run ended
    ended, laid_out = _shown(report, output)
    if laid_out and not failures:
        delivered()
    return ended


def _try(action: Callable[[], None]) -> str:
    try:
        action()
    except Exception as error:  # whatever it is, the run's own outcome must still be told
        return f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}"
    return ""


def _after(report: Report, failures: Sequence[str]) -> Report:
    code = ExitCode.FINDING if report.exit.code == ExitCode.FINDING else ExitCode.ERROR
    return replace(report, exit=Exit.of(code, "; ".join([report.exit.reason, *failures])))


def write(report: Report, path: Path, form: str = "") -> None:
    """Writes one file, whole, in the format of its suffix, or of ``form``; a page with a scan's pictures in it for this user alone.

    Raises:
        OSError: the disk or the folder refuses.
        BdauditError: the report holds what it must not.
    """
    form = form or format_of(path)
    private = form == ".html" and isinstance(report, ScanReport) and bool(report.images)
    write_whole(path, FORMATS[form](report).encode("utf-8"), mode=0o600 if private else None)


def _shown(report: Report, output: Output) -> tuple[Exit, bool]:
    """The report on stdout, its exit, and whether it could be laid out; that it cannot is an error as one that cannot be written is."""
    text: list[str] = []
    failure = _try(lambda: text.append(_tables_on_stdout(report) if output.stdout == TABLES else FORMATS[output.stdout](report)))
    if failure:
        return _after(report, [f"stdout could not be written: {failure}"]).exit, False
    why = put(text[0])
    said = [report.exit.reason, *([f"stdout could not be written: {why}"] if why else [])]
    return replace(report.exit, reason="; ".join(said)), True


def _tables_on_stdout(report: Report) -> str:
    """Nothing where a run ended before it had anything: the last line has the reason, and there is no more."""
    nothing = report.status != "completed" and isinstance(report.model, NotMeasured)
    return "" if nothing else _tables(report, console_for(sys.stdout))


def _tables(report: Report, console: Console) -> str:
    from bdaudit.report.content.whole import content
    from bdaudit.report.terminal import renderable

    return _printed(renderable(content(report)), console, crop=False)


def rendered(what: RenderableType) -> str:
    """As it stands on stdout."""
    return _printed(what, console_for(sys.stdout), crop=True)


def _printed(what: RenderableType, console: Console, *, crop: bool) -> str:
    with console.capture() as captured:
        console.print(what, crop=crop)
    return captured.get()


def put(text: str) -> str:
    """Puts ``text`` on stdout; why some of it went nowhere, or nothing where it did not, or where its reader left by itself."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        return ""
    except (OSError, ValueError) as error:  # ValueError: the stream was closed
        return f"{type(error).__name__}: {error}"
    return lost(sys.stdout)


def console_for(stream: TextIO) -> Console:
    """A console that reads no markup; as wide as the terminal, or ``PIPED_WIDTH`` where there is none."""
    width = None if stream.isatty() else PIPED_WIDTH
    return Console(file=stream, width=width, **_INERT)


def last_line(outcome: Exit, where: str, note: str = "") -> str:
    """``bdaudit: exit 1 (finding): 1 of 812 candidates backdoored; report: scan.json``; a long path loses its beginning, then a long
    reason its middle. Of a ``note`` in the reason nothing is lost, however long the line becomes."""
    kept = f"; {one_line(note)}" if note and f"; {note}" in outcome.reason else ""
    reason = one_line(outcome.reason.replace(f"; {note}", "", 1) if kept else outcome.reason)
    before = f"bdaudit: exit {outcome.code} ({outcome.name}): "
    room = max(_LAST_LINE - len(before) - len(kept) - len("; report: "), 2 * _END)
    end = max(room - len(reason), _END)
    where = where if len(where) <= end else f"…{where[len(where) + 1 - end :]}"
    room -= len(where)
    shown = reason if len(reason) <= room else f"{reason[: room // 2]}…{reason[len(reason) + 1 - room // 2 :]}"
    return f"{before}{shown}{kept}; report: {where}"


def last_lines(outcome: Exit, where: str, note: str = "") -> str:
    """The last line; above it the whole reason, in its own lines, where the last one has no room for it."""
    line, said = last_line(outcome, where, note), (outcome.reason.replace(f"; {note}", "", 1) if note else outcome.reason)[:_MOST_SAID]
    if one_line(said) in line:
        return line
    first, *more = said.splitlines()
    return "\n".join((f"bdaudit: {visible(first)}", *(f"  {visible(each.strip())}" for each in more), line))
