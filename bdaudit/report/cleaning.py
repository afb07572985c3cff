"""The scatter of a contrastive cleaning as lines and rows of text. Pure; knows neither terminal nor page."""

from __future__ import annotations

from bdaudit.report.records import CleaningPoint, CleaningRecord, UnlearnReport
from bdaudit.report.safe import visible
from bdaudit.report.words import estimate, rate, short, short_points

HEADERS = ("learning rate", "step", "passes", "accuracy", "canary works", "residue", "spread", "")
"""Of ``rows``."""


def rows(record: CleaningRecord) -> list[tuple[str, ...]]:
    """One row a point, in the order of the sweep."""
    return [_row(point, i == record.chosen) for i, point in enumerate(record.points)]


def _row(point: CleaningPoint, chosen: bool) -> tuple[str, ...]:
    said = "chosen" if chosen else f"rejected: {visible(point.rejected)}" if point.rejected else ""
    figures = f"{point.rate:g}", str(point.step), f"{point.passes:.1f}", rate(point.accuracy), rate(point.canary)
    return (*figures, f"{point.residue.value:.2f}", f"{point.spread:.2f}", said)


def lines(report: UnlearnReport) -> list[str]:
    """What was cleaned with, and what the choice came to; nothing for another method."""
    record = report.cleaning
    if not isinstance(record, CleaningRecord):
        return []
    points = short_points(tuple(f"U+{ord(c):04X}" for c in record.canary))
    return [
        f"cleaning: {visible(record.mode)}, {record.pairs} pairs, {record.held_out} of them held out",
        f"canary: {short(record.canary)} ({points}) for {short(record.canary_target)}; before: {estimate(record.canary_before)}",
        f"accuracy ({visible(record.accuracy_is)}): {estimate(record.accuracy_before)} → {estimate(record.accuracy_after)}",
        f"pre-training objective {visible(record.pretrain_objective)}: {visible(record.consequence)}",
    ]
