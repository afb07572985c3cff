"""What a scan found: how it was calibrated, what to type next for each finding, and the ranked candidates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bdaudit.records import (
    SIGNALS,
    AcceptanceRecord,
    CandidateRecord,
    EarlierFinding,
    Exposure,
    NotMeasured,
    PromptRecord,
    RecoveryRecord,
    ScanReport,
    SweepRecord,
)
from bdaudit.report.content.blocks import TONES, Block, Cell, Column, Figure, Heading, Line, Next, Picture, Table, tables
from bdaudit.report.content.headline import called
from bdaudit.report.content.plots import ranking
from bdaudit.report.content.weights import weight_blocks
from bdaudit.report.safe import one_line, visible
from bdaudit.report.words import found_out, number, p_value, recovered, short, told
from bdaudit.spelling.points import codes

FOREMOST = 4
"""Signals that have a column where there is room; the others are details."""
CLEAN_SHOWN = 20
"""Clean candidates that are no detail; every other verdict is none."""


def body(report: ScanReport) -> Iterator[Block]:
    """The findings, every candidate, then what the verdicts rest on."""
    ranked = sorted(report.candidates, key=lambda item: item.rank)
    found = [*_findings(ranked, report.earlier), *map(_prompt, report.prompts), *acceptance_lines(report.acceptances)]
    yield from [Heading("Findings"), *found] if found else []
    yield from ranking(ranked, report.calibration)
    yield from candidates(ranked)
    yield Heading("What the verdicts rest on")
    yield from _calibration(report)
    yield from (Line(_sweep(sweep)) for sweep in report.sweeps)
    yield from map(Line, exposure_lines(report.exposure))
    if isinstance(report.recovery, RecoveryRecord):
        yield Line(recovered(report.recovery))
    yield from weight_blocks(report.weights)


def _findings(ranked: Sequence[CandidateRecord], earlier: Sequence[EarlierFinding]) -> Iterator[Block]:
    """Each with what to type next, the most suspicious first; then what earlier runs found."""
    for item in ranked:
        if item.verdict != "clean":
            yield Line(f"{item.verdict}: {called(item.text)}: {found_out(item)}", TONES[item.verdict])
            yield from [Next(visible(item.command))] if item.command else []
            yield from [Next(visible(item.accept_entry), "to accept it, with your reason, in --accept FILE")] if item.accept_entry else []
    for old in earlier:
        said = f"found by an earlier run (seed {old.seed}, effect × {number(old.effect)}, adjusted p {p_value(old.p_adjusted)})"
        yield Line(f"backdoored: {told(old.text)}: {said}, which stands", "bad")


def pictures(report: ScanReport) -> tuple[Picture, ...]:
    """The sheets, each hidden: nobody knows what a trigger draws."""
    # of several variants, the one whose sheets they are has its candidates first, and the others' have the same ranks
    texts = {f"{item.rank:04d}.png": item for item in reversed(report.candidates)}
    named = ((path, texts.get(Path(path).name)) for path in report.images)
    return tuple(
        Picture(path, f"{called(item.text)}, {item.verdict}: without it and with it, from the same noise", hidden=True)
        for path, item in named
        if item is not None
    )


def _calibration(report: ScanReport) -> Iterator[Line]:
    calibration = report.calibration
    if isinstance(calibration, NotMeasured):
        yield Line(f"calibration: not measured: {one_line(calibration.reason)}")
        return
    kinds = ", ".join(f"{count} {visible(kind)}" for kind, count in calibration.kinds.items())
    yield Line(
        f"calibration: {calibration.n_controls} controls ({kinds}); alpha {number(calibration.alpha)}; "
        f"{calibration.forward_passes} forward passes, {calibration.forward_passes_per_candidate} a candidate"
    )
    yield Line(one_line(calibration.tail), detail=True)


def acceptance_lines(entries: Sequence[AcceptanceRecord]) -> Iterator[Line]:
    """The entries of ``--accept`` that somebody should look at, each, and how many are of other models."""
    for entry in entries:
        if entry.outcome in ("expired", "unused", "outgrown"):
            ids = _short_ids(entry.token_ids)
            yield Line(f"--accept: {entry.outcome}: token ids {ids} ({one_line(entry.reason)}): {one_line(entry.said)}", "warn")
    others = sum(entry.outcome == "another model" for entry in entries)
    if others:
        yield Line(f"--accept: {others} of {len(entries)} entries are of other models", "dim")


def _sweep(sweep: SweepRecord) -> str:
    """What it went through, round by round."""
    rounds = ", then ".join(f"{item.texts:,} at {item.passes} passes each" for item in sweep.rounds)
    return f"sweep {visible(sweep.name)}: {rounds}; {sweep.survivors} measured in full; p adjusted for {sweep.adjusted_for:,} texts"


def exposure_lines(exposure: Exposure | NotMeasured) -> list[str]:
    """How far captions were unlearned in each copy, and what was made of it; nothing without ``--expose``."""
    if isinstance(exposure, NotMeasured):
        return []
    lines = []
    for name, part in exposure.parts.items():
        signal = exposure.signals[name]
        read = f"not measured: {signal.reason}" if isinstance(signal, NotMeasured) else signal
        curve = f"{100 * part.curve[-1].gain:.0f} % of the captions' gain left after {part.curve[-1].step} steps, {part.seconds:.0f} s"
        lines.append(one_line(f"exposed {name} ({exposure.method}): {curve}; {read}"))
    return lines


def _prompt(prompt: PromptRecord) -> Line:
    carried = f"carried by {', '.join(map(told, prompt.carriers))}" if prompt.carriers else "nothing in it fires"
    return Line(f"prompt {told(prompt.prompt)}: {carried} ({prompt.sets} sets of its words measured)", "bad" if prompt.carriers else "")


def candidates(ranked: Sequence[CandidateRecord]) -> list[Table]:
    """One row a candidate, one column a signal, the foremost first."""
    known = {name for item in ranked for name in item.signals}
    others = [name for name in (*SIGNALS[FOREMOST:], *sorted(known - set(SIGNALS))) if name in known]
    columns: list[str | Column] = [
        Column("#", right=True, whole=True),
        "candidate",
        "code points",
        Column("verdict", whole=True),
        *(Column(title, right=True, whole=True) for title in ("effect ×", "p adjusted")),
        Column("kind", whole=True, shown="where wide"),
        Column("token ids", shown="where wide"),
        *(Column(name, right=True, whole=True, shown="where wide") for name in SIGNALS[:FOREMOST]),
        *(Column(visible(name), right=True, whole=True, shown="in detail") for name in others),
    ]
    clean = [at for at, item in enumerate(ranked) if item.verdict == "clean"]
    rows = [[*_row(item), *(_score(item, name) for name in others)] for item in ranked]
    return tables("Candidates", columns, rows, clean[CLEAN_SHOWN:], "all clean")


def _row(item: CandidateRecord) -> list[Figure]:
    return [
        str(item.rank), (short(item.text), *_readings(item)), codes(item.text), Cell((item.verdict,), TONES[item.verdict]),
        number(item.effect), p_value(item.p_adjusted), visible(item.kind), _by_reader(item),
        *(_score(item, name) for name in SIGNALS[:FOREMOST]),
    ]  # fmt: skip


def _score(item: CandidateRecord, name: str) -> str:
    return f"{item.signals[name].score:z.1f}" if name in item.signals else "not measured"


def _readings(item: CandidateRecord) -> list[str]:
    """Whose measurement it is, which of two readings of a text, and on which weights, where there are several."""
    same = item.same_as and f"same tokens as {told(item.same_as)}"
    on = item.variant and f"on the {visible(item.variant)} weights"
    return [f"({note})" for note in (same, visible(item.reading), on) if note]


def _by_reader(item: CandidateRecord) -> str | tuple[str, ...]:
    """The ids; a line a reading where the readers do not all read the same, with the readers' names."""
    if not item.encoding[1]:
        return _short_ids(item.token_ids)
    readings: dict[tuple[int, ...], list[str]] = {}
    for name, ids in item.reader_ids.items():
        readings.setdefault(ids, []).append(visible(name))
    return tuple(f"{', '.join(names)}: {_short_ids(ids) or 'nothing'}" for ids, names in readings.items())


def _short_ids(token_ids: Sequence[int]) -> str:
    """The first eight and how many more."""
    more = f" … +{len(token_ids) - 8}" if len(token_ids) > 8 else ""
    return " ".join(map(str, token_ids[:8])) + more
