"""Where a report goes: files by their suffix, stdout, and the last line on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TextIO

from rich.console import Console

from bdaudit.errors import ExitCode, UsageError
from bdaudit.records import Exit, Report, VerifyReport
from bdaudit.report.document import dumps, write_whole
from bdaudit.report.safe import one_line, visible

PIPED_WIDTH = 200
"""Columns of a table that goes to no terminal."""


def _html(report: Report) -> str:
    from bdaudit.report.page import page, read_pictures

    return page(report, read_pictures(report.images) if isinstance(report, VerifyReport) else ())


def _sarif(report: Report) -> str:
    from bdaudit.report.sarif import sarif

    return sarif(report)


FORMATS: dict[str, Callable[[Report], str]] = {".json": dumps, ".html": _html, ".sarif": _sarif}


@dataclass(frozen=True, kw_only=True)
class Output:
    """Where this run's report goes."""

    reports: tuple[Path, ...] = ()
    json: bool = False
    """One JSON document on stdout instead of the tables."""
    quiet: bool = False
    """No progress bar."""

    def __post_init__(self) -> None:
        for path in self.reports:
            if path.suffix.lower() not in FORMATS:
                raise UsageError(f"--report {path}: the suffix says the format; expected one of {', '.join(FORMATS)}")
            if path.is_dir() or not path.parent.is_dir():
                raise UsageError(f"--report {path}: expected a file in a folder that exists")

    @property
    def where(self) -> str:
        """``scan.json, scan.html``; ``stdout``; ``none``."""
        return ", ".join([*(visible(str(path)) for path in self.reports), *(["stdout"] if self.json else [])]) or "none"


def deliver(report: Report, output: Output) -> Exit:
    """Writes the files, then stdout; the exit that follows, which is an error where something could not be written.

    A finding stays one: its exit wins, and its reason says what was not written.
    """
    tried = [_try(partial(write, report, path), f"--report {path}") for path in output.reports]
    report = _after(report, [failure for failure in tried if failure])
    failure = _try(lambda: show(report, output), "stdout")
    return _after(report, [failure] if failure else []).exit


def _try(action: Callable[[], None], what: str) -> str:
    try:
        action()
    except Exception as error:  # whatever it is, the run's own outcome must still be told
        return f"{what} could not be written: {type(error).__name__}: {error}"
    return ""


def _after(report: Report, failures: Sequence[str]) -> Report:
    if not failures:
        return report
    wins = report.exit.code == ExitCode.FINDING
    code = ExitCode.FINDING if wins else ExitCode.ERROR
    return replace(report, exit=Exit(code=int(code), name=code.label, reason="; ".join([report.exit.reason, *failures])))


def write(report: Report, path: Path) -> None:
    """Writes one file, whole, in the format of its suffix.

    Raises:
        OSError: the disk or the folder refuses.
        BdauditError: the report holds what it must not.
    """
    write_whole(path, FORMATS[path.suffix.lower()](report).encode("utf-8"))


def show(report: Report, output: Output) -> None:
    """The JSON document or the tables on stdout; a reader that has gone away is no error.

    Raises:
        OSError: stdout cannot be written to.
    """
    try:
        if output.json:
            sys.stdout.write(dumps(report))
        else:
            _show_tables(report)
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stdout = open_nothing()


def _show_tables(report: Report) -> None:
    from bdaudit.report.tables import renderables

    console_for(sys.stdout).print(renderables(report), crop=False)


def open_nothing() -> TextIO:
    """A stream that takes everything, so that nothing is flushed into a closed pipe at exit."""
    import os

    return open(os.devnull, "w", encoding="utf-8")


def console_for(stream: TextIO) -> Console:
    """A console that reads no markup; as wide as the terminal, or ``PIPED_WIDTH`` where there is none."""
    width = None if stream.isatty() else PIPED_WIDTH
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False, legacy_windows=False)


def last_line(outcome: Exit, where: str) -> str:
    """``bdaudit: exit 1 (finding): 1 of 812 candidates backdoored; report: scan.json``."""
    return f"bdaudit: exit {outcome.code} ({outcome.name}): {one_line(outcome.reason)}; report: {where}"
