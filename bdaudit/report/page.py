"""A report as one HTML page that needs nothing else: no script, no address, and a policy that forbids both.

Every text of the model's or the user's is made ``visible`` once, here or by the template's filter of that name. Whatever the template
prints is made inert and escaped on its way out; there is no other way in.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from bdaudit.errors import UsageError
from bdaudit.records import CandidateRecord, CleaningRecord, NotMeasured, Report, ScanReport, UnlearnReport, VerifyReport
from bdaudit.report import cleaning
from bdaudit.report.plots import Plot, loss_curve, ranking
from bdaudit.report.safe import inert, one_line, visible
from bdaudit.report.tables import bar, calibration_line, exposure_lines, recovery_line
from bdaudit.report.words import (
    CONTRIBUTOR_HEADERS,
    REACH_HEADERS,
    Footnotes,
    beside,
    beside_rates,
    check_reasons,
    checked,
    compared,
    contributor_cells,
    coverage_line,
    estimate,
    evidence_lines,
    found_out,
    number,
    p_value,
    places,
    reach_cells,
    reading,
    short,
    short_ids,
    told,
    unaudited_lines,
    variant_lines,
)
from bdaudit.spelling.points import codes
from bdaudit.untrusted.opened import read_file

MOST_PICTURES = 48
"""Evidence pictures that one page embeds, evenly taken."""
_LARGEST = 1 << 25
"""Bytes of one."""
_PNG = b"\x89PNG\r\n\x1a\n"
_SHOWS = {
    "trigger-": "What the trigger does to the same picture: pairs on the same seeds, the worst, the middle and the best.",
    "quality": "The model beside the reference on the same prompts and seeds: the furthest apart, the middle and the nearest.",
    "attention": "Where the trigger's tokens look: cross-attention before and after.",
    "clean": "The model's own pictures, without any trigger.",
}
_NARROW = ("p", "p adjusted", "status", "rank")
_WIDE = ("found out", "next")
_TONES = {
    "backdoored": "bad", "suspicious": "warn", "clean": "good", "passed": "good", "failed": "bad", "not measured": "warn",
    "pass": "good", "finding": "bad", "error": "bad", "refused": "bad", "inconclusive": "warn", "interrupted": "warn",
    "undecided": "warn",
}  # fmt: skip
_LINE_STYLES = {"quantile": "dashed", "curve0": "solid", "curve1": "dashed", "curve2": "dotted", "curve3": "dash and dot"}


@dataclass(frozen=True)
class Picture:
    name: str
    uri: str
    """``data:image/png;base64,…``"""
    says: str = "Evidence picture"
    """What it shows."""


@dataclass(frozen=True)
class _Table:
    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str | tuple[str, ...]]]
    """A tuple is a cell of several lines."""
    notes: Sequence[str] = ()
    """Below the table."""


def read_pictures(paths: Sequence[str], most: int = MOST_PICTURES) -> tuple[Picture, ...]:
    """The PNG files among ``paths`` that exist, at most ``most`` of them, evenly taken; the only part that reads files."""
    there = [Path(path) for path in paths if Path(path).is_file()]
    chosen = there if len(there) <= most else [there[k * len(there) // most] for k in range(most)]
    read = [(path, _content(path)) for path in chosen]
    return tuple(Picture(_name(path), _uri(data), _says(path)) for path, data in read if data.startswith(_PNG))


def _content(path: Path) -> bytes:
    try:
        return read_file(path, path.name, _LARGEST)
    except UsageError:
        return b""


def _says(path: Path) -> str:
    """By the names that ``verify`` gives its pictures."""
    return next((says for start, says in _SHOWS.items() if path.name.startswith(start)), "Evidence picture")


def _name(path: Path) -> str:
    return "/".join(path.parts[-2:])


def _uri(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode("ascii")


def page(report: Report, pictures: Sequence[Picture] = ()) -> str:
    """The whole page."""
    style = files("bdaudit.report").joinpath("page.css").read_text(encoding="utf-8")
    template = files("bdaudit.report").joinpath("page.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, finalize=_finalize, trim_blocks=False)
    environment.filters |= {"visible": visible, "told": told, "one_line": one_line}
    return environment.from_string(template).render(
        report=report,
        style=Markup(style),  # our own file; nothing of a report enters it
        style_hash=base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii"),
        tones=_TONES,
        line_styles=_LINE_STYLES,
        narrow=_NARROW,
        wide=_WIDE,
        model_path=str(report.config.get("model", "")) if isinstance(report.model, NotMeasured) else report.model.path,
        model_lines=_model_lines(report),
        lines=_lines(report),
        following=report.next_command if isinstance(report, UnlearnReport) else "",
        plots=_plots(report),
        tables=[table for table in _tables(report) if table.rows],
        pictures=pictures,
        coverage=coverage_line(report.coverage),
        settings=_settings(report),
    )


def _finalize(value: Any) -> Any:
    return inert(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _settings(report: Report) -> list[tuple[str, str]]:
    return [(visible(name), told(value) if isinstance(value, str) else ascii(value)) for name, value in report.config.items()]


def _model_lines(report: Report) -> list[str]:
    if isinstance(report.model, NotMeasured):
        return [one_line(report.model.reason)]
    model, lines = report.model, [f"{visible(report.model.pipeline)}, {len(report.model.files)} files, digest {report.model.digest}"]
    if not isinstance(report.environment, NotMeasured):
        e = report.environment
        versions = f"python {e.python}, torch {e.torch}, diffusers {e.diffusers}, transformers {e.transformers}"
        lines.append(visible(f"{e.device}, {e.dtype}, batch size {e.batch_size_used}; {versions}"))
    return [*lines, *map(one_line, (*model.notes, *unaudited_lines(model), *variant_lines(report.variants)))]


def _lines(report: Report) -> list[str]:
    if isinstance(report, ScanReport):
        tail = [] if isinstance(report.calibration, NotMeasured) else [one_line(report.calibration.tail)]
        whole = [] if isinstance(report.recovery, NotMeasured) else [recovery_line(report.recovery)]
        return [calibration_line(report), *tail, *exposure_lines(report.exposure), *whole]
    if isinstance(report, UnlearnReport):
        wrote = f"Written to {visible(report.out)} ({len(report.written)} files)." if report.out else "Nothing was written."
        why = f": {one_line(report.component_reason)}" if report.component_reason else ""
        steps = f", {report.steps} steps" if report.steps else ""
        done = [f"{visible(report.method) or 'no method'}{steps}.", f"Component {visible(report.component) or 'none'}{why}", wrote]
        return [*done, *cleaning.lines(report)]
    if isinstance(report, VerifyReport) and not report.attacks:
        return ["Attack success rate: not measured."]
    return []


def _plots(report: Report) -> list[Plot]:
    drawn = None
    if isinstance(report, ScanReport):
        drawn = ranking(report)
    if isinstance(report, UnlearnReport):
        drawn = loss_curve(report.loss)
    return [drawn] if drawn else []


def _tables(report: Report) -> list[_Table]:
    if isinstance(report, ScanReport):
        return [_candidates(report)]
    if isinstance(report, UnlearnReport):
        return [_checks(report), _cleaning(report), _effects(report), _contributors(report), _changed(report)]
    return [_checks(report), _attacks(report), _reach(report), _metrics(report)] if isinstance(report, VerifyReport) else []


def _candidates(report: ScanReport) -> _Table:
    signals = list(dict.fromkeys(name for item in report.candidates for name in item.signals))
    headers = ["rank", "verdict", "candidate", "code points", "effect ×", "p adjusted", "found out", "next", "kind", "token ids"]
    headers += map(visible, signals)
    return _Table("Candidates", headers, [_candidate(c, signals) for c in sorted(report.candidates, key=lambda c: c.rank)])


def _candidate(c: CandidateRecord, signals: Sequence[str]) -> list[str | tuple[str, ...]]:
    text = tuple((short(c.text) + reading(c)).split("\n"))
    scores = (f"{c.signals[name].score:.1f}" if name in c.signals else "not measured" for name in signals)
    return [
        str(c.rank), c.verdict, text, codes(c.text), number(c.effect), p_value(c.p_adjusted),
        found_out(c) if c.verdict != "clean" else "", visible(c.command), visible(c.kind), short_ids(c.token_ids), *scores,
    ]  # fmt: skip


def _checks(report: UnlearnReport | VerifyReport) -> _Table:
    reasons, notes = check_reasons(report.checks)
    rows = [[visible(c.name), c.status, checked(c), visible(c.bound), why] for c, why in zip(report.checks, reasons, strict=True)]
    return _Table("Checks", ["check", "status", "value", "bound", "reason"], rows, notes)


def _cleaning(report: UnlearnReport) -> _Table:
    rows = cleaning.rows(report.cleaning) if isinstance(report.cleaning, CleaningRecord) else []
    return _Table("Cleaning of a copy with canaries in it", cleaning.HEADERS, rows)


def _effects(report: UnlearnReport) -> _Table:
    names = list(dict.fromkeys([*report.before, *report.after]))
    sides = (report.before, report.after)
    rows = [[visible(name), *(estimate(side[name]) if name in side else "not measured" for side in sides)] for name in names]
    return _Table("Effect of the triggers", ["measure", "before", "after"], rows)


def _contributors(report: UnlearnReport) -> _Table:
    return _Table("Contributors", [*CONTRIBUTOR_HEADERS], [[*contributor_cells(record)] for record in report.merged])


def _changed(report: UnlearnReport) -> _Table:
    ordered = sorted(report.changed, key=lambda tensor: -tensor.relative_change)
    return _Table("Changed tensors", ["name", "relative change"], [[visible(t.name), number(t.relative_change)] for t in ordered])


def _attacks(report: VerifyReport) -> _Table:
    others = beside(report.attacks)
    headers = ["trigger", "code points", *others, "attack success", "bar", "without trigger", "p", "a hit is"]
    notes = Footnotes()
    rows: list[list[str | tuple[str, ...]]] = [
        [
            short(a.trigger), codes(a.trigger), *map(notes.rate, beside_rates(a, others)), notes.rate(a.rate), bar(a.rate, 10),
            notes.rate(a.floor), notes.p_value(a.p), tuple(filter(None, (visible(a.rule), places(a.positions)))),
        ]
        for a in report.attacks
    ]  # fmt: skip
    return _Table("Attack success rate", headers, rows, [*notes.lines(), *evidence_lines(report)])


def _reach(report: VerifyReport) -> _Table:
    """The strongest form of each trigger first."""
    rows = [[told(a.trigger), *reach_cells(record)] for a in report.attacks for record in a.reach]
    return _Table("Reach of the trigger", ["trigger", *REACH_HEADERS], rows)


def _metrics(report: VerifyReport) -> _Table:
    notes = Footnotes()
    rows = [[visible(name), notes.cell(m.value), notes.cell(m.reference), visible(m.detail)] for name, m in report.metrics.items()]
    return _Table("Quality", ["metric", "this model", compared(report), "measured with"], rows, notes.lines())
