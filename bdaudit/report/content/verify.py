"""What a verification measured: checks, attack success, reach, quality, and the evidence pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

from bdaudit.records import AttackRecord, Estimate, EvidenceRecord, NotMeasured, ReachRecord, VerifyReport
from bdaudit.report.content.blocks import Block, Column, Figure, Line, Picture, Table, figure, tables
from bdaudit.report.content.checks import checks
from bdaudit.report.safe import one_line, visible
from bdaudit.report.words import p_value, rate, short, told
from bdaudit.spelling.points import codes

BAR = "bar: █ the rate, ░ up to the upper end of its interval"
STRONGEST = 3
"""Forms of a trigger that are no detail."""
_SHOWS = {
    "trigger-": "What the trigger does to the same picture: pairs on the same seeds, the worst, the middle and the best.",
    "quality": "The model beside {beside} on the same prompts and seeds: the furthest apart, the middle and the nearest.",
    "attention": "Where the trigger's tokens look: cross-attention before and after.",
    "clean": "The model's own pictures, without any trigger.",
}
"""By how the name of a picture begins."""


def body(report: VerifyReport) -> Iterator[Block]:
    """The checks, then what they were held against."""
    yield from checks(report.checks)
    yield from _attacks(report)
    if not report.attacks:
        yield Line("attack success rate: not measured")
    yield from (Line(f"in context: {line}", "warn") for attack in report.attacks for line in _contexts(attack))
    yield from (Line(f"evidence for {short(attack.trigger)}: {one_line(attack.evidence.reason)}") for attack in report.attacks)
    yield from [Line(one_line(report.says_of_itself))] if report.says_of_itself else []
    yield from _reach(report)
    yield from _quality(report)
    if report.images:
        yield Line(f"{len(report.images)} evidence pictures written, the first: {visible(report.images[0])}")


def pictures(report: VerifyReport) -> tuple[Picture, ...]:
    """Each evidence picture, and what it shows: what the trigger does first, then in the order of ``_SHOWS``."""
    ordered = sorted(report.images, key=lambda path: next((at for at, start in enumerate(_SHOWS) if Path(path).name.startswith(start)), 99))
    beside = "the model before" if report.compared_with == "before" else "the reference"
    return tuple(Picture(path, _says(Path(path).name, beside)) for path in ordered)


def _says(name: str, beside: str) -> str:
    return next((says for start, says in _SHOWS.items() if name.startswith(start)), "Evidence picture").format(beside=beside)


def _attacks(report: VerifyReport) -> list[Table]:
    """One row a trigger. Before and reference stand beside the model's own rate: before where there is one, reference unless before alone
    is there."""
    before = any(isinstance(_before(attack), Estimate) for attack in report.attacks)
    reference = not before or any(isinstance(attack.reference, Estimate) for attack in report.attacks)
    columns: list[str | Column] = [
        "trigger", "code points", *["before"] * before, *["reference"] * reference, "attack success", Column("bar", whole=True),
        "without trigger", Column("p", whole=True), "a hit is",
    ]  # fmt: skip
    rows: list[list[Figure]] = [
        [
            short(a.trigger), codes(a.trigger), *[figure(_before(a), rate)] * before, *[figure(a.reference, rate)] * reference,
            figure(a.rate, rate), bar(a.rate), figure(a.floor, rate), figure(a.p, p_value), (visible(a.rule), *_places(a)),
        ]
        for a in report.attacks
    ]  # fmt: skip
    return [replace(table, notes=(BAR, *table.notes)) for table in tables("Attack success rate", columns, rows)]


def _contexts(attack: AttackRecord) -> list[str]:
    """The success in each context where it is clearly more, and in those that were named."""
    return [f"{short(attack.trigger)} under prompts with {short(words)}: {rate(found)}" for words, found in attack.contexts.items()]


def _before(attack: AttackRecord) -> Estimate | NotMeasured:
    """The trigger's rate on the model that carried the backdoor."""
    return attack.evidence.rate if isinstance(attack.evidence, EvidenceRecord) else attack.evidence


def _places(attack: AttackRecord) -> list[str]:
    counts = ", ".join(f"{visible(place)} {count}" for place, count in attack.positions.items())
    return [f"positions: {counts}"] if counts else []


def bar(value: Estimate | NotMeasured, width: int = 10) -> str:
    """A rate as a bar of ``width`` cells: full to the point estimate, light to the interval's upper end."""
    if isinstance(value, NotMeasured):
        return ""
    full, upper = (round(width * min(max(share, 0.0), 1.0)) for share in (value.value, value.high))
    return "█" * full + "░" * max(0, upper - full) + "·" * (width - max(full, upper))


def _reach(report: VerifyReport) -> list[Table]:
    """One row a form of a trigger, the strongest of each trigger first."""
    columns: list[str | Column] = ["trigger", "form", "text", "code points", "attack success", "without trigger", Column("p", whole=True)]
    rows = [_form(attack, record) for attack in report.attacks for record in attack.reach]
    places = chain.from_iterable(range(len(attack.reach)) for attack in report.attacks)
    weaker = (at for at, place in enumerate(places) if place >= STRONGEST)
    return tables("Reach of the trigger", columns, rows, weaker, f"weaker than the {STRONGEST} strongest of their trigger")


def _form(attack: AttackRecord, record: ReachRecord) -> list[Figure]:
    text = [told(attack.trigger), visible(record.what), short(record.text), codes(record.text)]
    return [*text, figure(record.rate, rate), figure(record.floor, rate), figure(record.p, p_value)]


def _quality(report: VerifyReport) -> list[Table]:
    columns: list[str | Column] = ["metric", "this model", "before" if report.compared_with == "before" else "reference", "measured with"]
    return tables("Quality", columns, [[visible(name), m.value, m.reference, visible(m.detail)] for name, m in report.metrics.items()])
