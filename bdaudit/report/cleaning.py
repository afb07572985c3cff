"""The scatter of a contrastive cleaning as lines and rows of text. Pure; knows neither terminal nor page."""

from __future__ import annotations

from bdaudit.records import CleaningPoint, CleaningRecord, Estimate, NotMeasured, UnlearnReport
from bdaudit.report.safe import visible
from bdaudit.report.words import estimate, rate, told

HEADERS = ("learning rate", "step", "passes", "accuracy", "canaries work", "residue", "spread", "")
"""Of ``rows``."""


def rows(record: CleaningRecord) -> list[tuple[str, ...]]:
    """One row a point, in the order of the sweep."""
    return [_row(point, i == record.chosen) for i, point in enumerate(record.points)]


def _row(point: CleaningPoint, chosen: bool) -> tuple[str, ...]:
    said = "chosen" if chosen else f"rejected: {visible(point.rejected)}" if point.rejected else ""
    works = "\n".join(f"{visible(c.kind)}: {rate(c.rate)}" for c in point.canaries) or rate(point.canary)
    figures = f"{point.rate:g}", str(point.step), f"{point.passes:.1f}", rate(point.accuracy), works
    return (*figures, f"{point.residue.value:.2f}", f"{point.spread:.2f}", said)


def lines(report: UnlearnReport) -> list[str]:
    """What was cleaned with, and what the choice came to; nothing for another method."""
    record = report.cleaning
    if not isinstance(record, CleaningRecord):
        return []
    return [
        f"cleaning: {visible(record.mode)}, {record.pairs} pairs, {record.held_out} of them held out",
        *_planted(record),
        f"accuracy ({visible(record.accuracy_is)}): {estimate(record.accuracy_before)} → {estimate(record.accuracy_after)}",
        f"pre-training objective {visible(record.pretrain_objective)}: {visible(record.consequence)}",
    ]


def _planted(record: CleaningRecord) -> list[str]:
    """A line a canary; older reports have one, of no kind."""
    if not record.canaries:
        return [_canary("canary", record.canary, record.canary_target, record.canary_before)]
    return [_canary(f"canary, {visible(c.kind)}", c.text, c.target, c.before) for c in record.canaries]


def _canary(what: str, text: str, target: str, before: Estimate | NotMeasured) -> str:
    return f"{what}: {told(text)} for {told(target)}; before: {estimate(before)}"
