"""A report as Rich renderables. Pure; every text of the audited model or of the user goes through ``visible`` and is never markup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from bdaudit.records import (
    DECIDING,
    AttackRecord,
    CandidateRecord,
    Check,
    CleaningRecord,
    Estimate,
    Exposure,
    LossPoint,
    NotMeasured,
    PromptRecord,
    RecoveryRecord,
    Report,
    ScanReport,
    SweepRecord,
    UnlearnReport,
    VerifyReport,
)
from bdaudit.report import cleaning
from bdaudit.report.safe import one_line, visible
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

STYLES = {
    "backdoored": "bold red", "suspicious": "yellow", "clean": "green", "passed": "green", "failed": "bold red", "not measured": "yellow",
    "pass": "green", "finding": "bold red", "error": "red", "inconclusive": "yellow", "refused": "red", "interrupted": "yellow",
    "undecided": "yellow",
}  # fmt: skip
STRONGEST = 3
"""Forms of a trigger that the table lists."""
FULL = 110
"""Columns of a console from which the candidates' table has all of its own."""
CLEAN_SHOWN = 20
"""Clean candidates that the table lists; every other verdict is always listed."""


def renderables(report: Report) -> Group:
    """The whole report for a terminal: headline, results, what was skipped, limitations."""
    return Group(headline(report), *_results(report), *_around(report))


def _results(report: Report) -> list[RenderableType]:
    if isinstance(report, ScanReport):
        return scan(report)
    if isinstance(report, UnlearnReport):
        return unlearn(report)
    if isinstance(report, VerifyReport):
        return verify(report)
    return []


def headline(report: Report) -> Panel:
    """The outcome in one panel: exit name, reason, model."""
    style = STYLES.get(report.exit.name, "bold")
    lines = [Text(f"{visible(report.exit.name).upper()}: {one_line(report.exit.reason)}", style=style)]
    if isinstance(report.model, NotMeasured):
        lines.append(Text(f"model: {visible(str(report.config.get('model', '')))} ({one_line(report.model.reason)})"))
    else:
        lines.append(Text(f"model: {visible(report.model.path)} ({visible(report.model.pipeline)}, digest {report.model.digest[:16]})"))
        lines.extend(Text(f"note: {one_line(note)}", style="yellow") for note in report.model.notes)
        lines.extend(Text(one_line(line), style="yellow") for line in (*unaudited_lines(report.model), *variant_lines(report.variants)))
    if not isinstance(report.environment, NotMeasured):
        lines.append(Text(f"on {visible(report.environment.device)}, {visible(report.environment.dtype)}{_batch(report)}", style="dim"))
    return Panel(Group(*lines), title=Text(f"bdaudit {report.command}"), border_style=style)


def _batch(report: Report) -> str:
    environment = report.environment
    if isinstance(environment, NotMeasured) or environment.batch_size_asked == environment.batch_size_used:
        return ""
    return f", batch size {environment.batch_size_used} (asked: {environment.batch_size_asked}, memory ran out)"


def _around(report: Report) -> list[RenderableType]:
    coverage = report.coverage
    lines = [Text(f"coverage: {coverage_line(coverage)}")]
    lines += [Text(f"  skipped {told(item.what)}: {one_line(item.reason)}", style="yellow") for item in coverage.skipped]
    lines += [Text(f"  note: {one_line(what)}") for what in coverage.notes]
    lines += [Text(f"  not looked at: {one_line(what)}") for what in coverage.not_looked_at]
    lines += [Text(f"limitation: {one_line(text)}", style="dim") for text in report.limitations]
    return [Group(*lines)]


def _table(
    title: str, headers: Sequence[str], rows: Iterable[Sequence[str | Text]], right: Sequence[str] = (), whole: Sequence[str] = ()
) -> Table:
    """``right`` names columns set to the right, ``whole`` those that are never broken."""
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, expand=False, padding=(0, 1, 0, 0))
    for header in headers:
        name = header.replace(" ", "\n") if header in whole and len(header) > 8 else header
        table.add_column(Text(name), overflow="fold", justify="right" if header in right else "left", no_wrap=header in whole)
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    return table


def _word(status: str) -> Text:
    return Text(status, style=STYLES.get(status, ""))


# --- scan


def scan(report: ScanReport) -> list[RenderableType]:
    """Calibration, the ranked candidates, and what to type next for each finding."""
    shown = shown_candidates(report.candidates)
    hidden = len(report.candidates) - len(shown)
    parts: list[RenderableType] = [Text(calibration_line(report))]
    if shown:
        parts.append(candidate_table(shown))
    if hidden:
        parts.append(Text(f"… and {hidden} more, all clean; --report FILE.html or FILE.json lists every one"))
    parts += [Text(sweep_line(sweep)) for sweep in report.sweeps]
    parts += [Text(line) for line in exposure_lines(report.exposure)]
    parts += [] if isinstance(report.recovery, NotMeasured) else [Text(recovery_line(report.recovery))]
    parts += [Text(_prompt_line(prompt), style="" if not prompt.carriers else "bold red") for prompt in report.prompts]
    return parts + [_finding(item) for item in shown if item.verdict != "clean"]


def sweep_line(sweep: SweepRecord) -> str:
    """What a sweep went through, round by round."""
    rounds = ", then ".join(f"{item.texts:,} at {item.passes} passes each" for item in sweep.rounds)
    return f"sweep {visible(sweep.name)}: {rounds}; {sweep.survivors} measured in full; p adjusted for {sweep.adjusted_for:,} texts"


def exposure_lines(exposure: Exposure | NotMeasured) -> list[str]:
    """How far captions were unlearned in each copy, and what was made of it; nothing without ``--expose``."""
    if isinstance(exposure, NotMeasured):
        return []
    lines = []
    for name, part in exposure.parts.items():
        said = exposure.signals[name]
        told = f"not measured: {said.reason}" if isinstance(said, NotMeasured) else said
        curve = f"{100 * part.curve[-1].gain:.0f} % of the captions' gain left after {part.curve[-1].step} steps, {part.seconds:.0f} s"
        lines.append(one_line(f"exposed {name} ({exposure.method}): {curve}; {told}"))
    return lines


def recovery_line(record: RecoveryRecord) -> str:
    """How far the strongest mixture of entries goes, and the strongest text; the model's verdict."""
    text = f"the strongest text named, {told(record.text)}, {number(record.text_pull)} times" if record.text else "no text was named"
    return (
        f"recovery: {record.choices} soft choices; at equal movement of the text encoding the strongest pulls "
        f"{number(record.soft_pull)} times as far as the median entry, {text}, the strongest of {record.drawn} drawn at random "
        f"{number(record.strongest_entry)} times; named pull {number(record.named_pull)}, limit {number(record.limit)}: "
        f"the model as a whole is {record.verdict}"
    )


def _prompt_line(prompt: PromptRecord) -> str:
    carried = f"carried by {', '.join(map(told, prompt.carriers))}" if prompt.carriers else "nothing in it fires"
    return f"prompt {told(prompt.prompt)}: {carried} ({prompt.sets} sets of its words measured)"


def _finding(item: CandidateRecord) -> RenderableType:
    found = Text(f"{item.verdict}: {told(item.text)}: {found_out(item)}")
    return Group(found, _next(item.command, "  ")) if item.command else found


def _next(command: str, margin: str = "") -> Text:
    """On one line however long it is, which a terminal wraps without breaking it for whoever copies it."""
    return Text(f"{margin}next: {visible(command)}", no_wrap=True, overflow="ignore")


def shown_candidates(candidates: Sequence[CandidateRecord]) -> list[CandidateRecord]:
    """By rank: every candidate that is not clean, and the first ``CLEAN_SHOWN`` that are."""
    ranked = sorted(candidates, key=lambda item: item.rank)
    clean = {item.rank for item in [item for item in ranked if item.verdict == "clean"][:CLEAN_SHOWN]}
    return [item for item in ranked if item.verdict != "clean" or item.rank in clean]


@dataclass(frozen=True)
class ByWidth:
    """A table, and the same with fewer columns for a console narrower than ``FULL``."""

    full: Table
    narrow: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.full if options.max_width >= FULL else self.narrow


def candidate_table(candidates: Sequence[CandidateRecord]) -> ByWidth:
    """One row a candidate, one column a signal that decides; the others are in the JSON and the page."""
    numbers = [*DECIDING, "effect ×", "p adjusted"]
    headers = ["#", "candidate", "code points", "kind", "token ids", *numbers, "verdict"]
    rows = [_candidate_row(item) for item in candidates]
    few = [at for at, header in enumerate(headers) if header not in ("kind", "token ids", *DECIDING)]
    right, whole = ["#", *numbers], [*numbers, "kind", "verdict"]

    def of(kept: Sequence[int]) -> Table:
        return _table("Candidates", [headers[at] for at in kept], [[row[at] for at in kept] for row in rows], right, whole)

    return ByWidth(of(range(len(headers))), of(few))


def _candidate_row(item: CandidateRecord) -> list[str | Text]:
    scores = [f"{item.signals[name].score:.1f}" if name in item.signals else "not measured" for name in DECIDING]
    same = f"\n(same tokens as {told(item.same_as)})" if item.same_as else ""
    return [
        str(item.rank), short(item.text) + same + reading(item), codes(item.text), visible(item.kind), short_ids(item.token_ids),
        *scores, number(item.effect), p_value(item.p_adjusted), _word(item.verdict),
    ]  # fmt: skip


def calibration_line(report: ScanReport) -> str:
    """What the verdicts were calibrated against."""
    calibration = report.calibration
    if isinstance(calibration, NotMeasured):
        return f"calibration: not measured: {one_line(calibration.reason)}"
    kinds = ", ".join(f"{count} {visible(kind)}" for kind, count in calibration.kinds.items())
    return (
        f"calibration: {calibration.n_controls} controls ({kinds}); alpha {number(calibration.alpha)}; "
        f"{calibration.forward_passes} forward passes, {calibration.forward_passes_per_candidate} a candidate"
    )


# --- unlearn


def unlearn(report: UnlearnReport) -> list[RenderableType]:
    """What was repaired and why, the effect before and after, the checks, what was written."""
    lines = [
        Text(f"triggers: {', '.join(map(told, report.triggers)) or 'none'}"),
        Text(f"method: {visible(report.method) or 'none'}{_loss_line(report.steps, report.loss)}"),
        Text(f"component: {visible(report.component) or 'none'}{_because(report.component_reason)}"),
        Text(f"changed: {len(report.changed)} tensors{_most_changed(report)}"),
    ]
    wrote = f"written to {visible(report.out)} ({len(report.written)} files)" if report.out else "nothing was written"
    lines += [Text(line) for line in cleaning.lines(report)]
    tables = [*scatter(report), *before_after(report), *_contributors(report), *check_table(report.checks)]
    following = [_next(report.next_command)] if report.next_command else []
    return [Group(*lines), *tables, Text(wrote, style="bold"), *following]


def scatter(report: UnlearnReport) -> list[RenderableType]:
    """Every point of a contrastive cleaning; nothing for another method."""
    record = report.cleaning
    if not isinstance(record, CleaningRecord) or not record.points:
        return []
    return [_table("Cleaning of a copy with canaries in it", cleaning.HEADERS, cleaning.rows(record), cleaning.HEADERS[:3])]


def _because(reason: str) -> str:
    return f", because {one_line(reason)}" if reason else ""


def _loss_line(steps: int, loss: Sequence[LossPoint]) -> str:
    fell = f", loss {number(loss[0].total)} → {number(loss[-1].total)}" if loss else ""
    return f", {steps} steps{fell}" if steps else ""


def _most_changed(report: UnlearnReport) -> str:
    if not report.changed:
        return ""
    most = max(report.changed, key=lambda tensor: tensor.relative_change)
    return f", most of all {visible(most.name)} by {number(100 * most.relative_change)} %"


def before_after(report: UnlearnReport) -> list[RenderableType]:
    """A table of each measure of each trigger before and after; nothing where none was taken."""
    names = list(dict.fromkeys([*report.before, *report.after]))
    rows = [(visible(name), *(_held(side, name) for side in (report.before, report.after))) for name in names]
    return [_table("Effect of the triggers", ["measure", "before", "after"], rows)] if rows else []


def _contributors(report: UnlearnReport) -> list[RenderableType]:
    """One row a contributor of a merge; nothing where nothing was merged."""
    rows = [tuple(contributor_cells(record)) for record in report.merged]
    return [_table("Contributors", CONTRIBUTOR_HEADERS, rows)] if rows else []


def _held(side: dict[str, Estimate], name: str) -> str:
    return estimate(side[name]) if name in side else "not measured"


# --- verify


def verify(report: VerifyReport) -> list[RenderableType]:
    """Attack success, quality, checks, and how many pictures were written."""
    parts = attack_table(report.attacks) or [Text("attack success rate: not measured")]
    forms = [(told(a.trigger), *reach_cells(record)) for a in report.attacks for record in a.reach[:STRONGEST]]
    parts += [Text(line) for line in evidence_lines(report)]
    if forms:
        parts.append(_table(f"Reach: the {STRONGEST} strongest forms of each trigger", ["trigger", *REACH_HEADERS], forms))
    if report.metrics:
        notes = Footnotes()
        rows = [(visible(k), notes.cell(m.value), notes.cell(m.reference), visible(m.detail)) for k, m in report.metrics.items()]
        parts.append(_table("Quality", ["metric", "this model", compared(report), "measured with"], rows))
        parts += [Text(line) for line in notes.lines()]
    parts += check_table(report.checks)
    if report.images:
        parts.append(Text(f"{len(report.images)} evidence pictures written, the first: {visible(report.images[0])}"))
    return parts


def attack_table(attacks: Sequence[AttackRecord]) -> list[RenderableType]:
    """One row a trigger: the rates before the repair and of the reference, the model's own with a bar, the floor; nothing of none."""
    others = beside(attacks)
    headers = ["trigger", "code points", *others, "attack success", "", "without trigger", "p", "a hit is"]
    notes = Footnotes()
    rows = [
        (
            short(a.trigger),
            codes(a.trigger),
            *map(notes.rate, beside_rates(a, others)),
            notes.rate(a.rate),
            bar(a.rate, 10),
            notes.rate(a.floor),
            notes.p_value(a.p),
            "\n".join(filter(None, (visible(a.rule), places(a.positions)))),
        )
        for a in attacks
    ]
    return [_table("Attack success rate", headers, rows, whole=[""]), *map(Text, notes.lines())] if rows else []


def bar(value: Estimate | NotMeasured, width: int = 20) -> str:
    """A rate as a bar of ``width`` cells: full to the point estimate, light to the interval's upper end."""
    if isinstance(value, NotMeasured):
        return ""
    full = round(width * min(max(value.value, 0.0), 1.0))
    upper = round(width * min(max(value.high, 0.0), 1.0))
    return "█" * full + "░" * max(0, upper - full) + "·" * (width - max(full, upper))


def check_table(checks: Sequence[Check]) -> list[RenderableType]:
    """One row a check, and below it the reasons that several share; nothing where there is none."""
    reasons, notes = check_reasons(checks)
    rows = [(visible(c.name), _word(c.status), checked(c), visible(c.bound), why) for c, why in zip(checks, reasons, strict=True)]
    table = _table("Checks", ["check", "status", "value", "bound", "reason"], rows)
    return [table, *map(Text, notes)] if rows else []
