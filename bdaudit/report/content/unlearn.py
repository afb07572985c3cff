"""What a repair did: what was changed and why, the checks, the effect before and after, and what went into a cleaning or a merge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bdaudit.records import CleaningPoint, CleaningRecord, ContributorRecord, NotMeasured, UnlearnReport
from bdaudit.report.content.blocks import Block, Column, Figure, Heading, Line, Next, Table, tables
from bdaudit.report.content.checks import checks
from bdaudit.report.content.plots import loss_curve
from bdaudit.report.safe import one_line, visible
from bdaudit.report.words import estimate, number, or_why, rate, told


def body(report: UnlearnReport) -> Iterator[Block]:
    """The checks, what was done and written with what to type next, then the figures."""
    yield from checks(report.checks)
    yield Heading("What was done")
    yield from map(Line, (*_done(report), *cleaning_lines(report.cleaning)))
    yield Line(f"written to {visible(report.out)} ({len(report.written)} files)" if report.out else "nothing was written", "strong")
    yield from [Next(visible(report.next_command))] if report.next_command else []
    yield from _effects(report)
    yield from loss_curve(report.loss)
    yield from scatter(report.cleaning)
    yield from _contributors(report.merged)
    yield from _changed(report)


def _done(report: UnlearnReport) -> list[str]:
    fell = f", loss {number(report.loss[0].total)} → {number(report.loss[-1].total)}" if report.loss else ""
    steps = f", {report.steps} steps{fell}" if report.steps else ""
    because = f", because {one_line(report.component_reason)}" if report.component_reason else ""
    most = max(report.changed, key=lambda tensor: tensor.relative_change, default=None)
    most_changed = f", most of all {visible(most.name)} by {number(100 * most.relative_change)} %" if most else ""
    bound = f", under prompts that say {' or '.join(map(told, report.contexts))}" if report.contexts else ""
    return [
        f"triggers: {', '.join(map(told, report.triggers)) or 'none'}{bound}",
        f"method: {visible(report.method) or 'none'}{steps}",
        f"component: {visible(report.component) or 'none'}{because}",
        f"changed: {len(report.changed)} tensors{most_changed}",
    ]


def _effects(report: UnlearnReport) -> list[Table]:
    """Each measure of each trigger, before and after."""
    sides = (report.before, report.after)
    rows: list[list[Figure]] = [
        [visible(name), *(side.get(name, "not measured") for side in sides)] for name in dict.fromkeys([*report.before, *report.after])
    ]
    return tables("Effect of the triggers", ["measure", "before", "after"], rows)


def _changed(report: UnlearnReport) -> list[Table]:
    ordered = sorted(report.changed, key=lambda tensor: -tensor.relative_change)
    columns = [Column("name", shown="in detail"), Column("relative change", shown="in detail")]
    return tables("Changed tensors", columns, [[visible(tensor.name), number(tensor.relative_change)] for tensor in ordered])


# --- a merge


def _contributors(records: Sequence[ContributorRecord]) -> list[Table]:
    columns = [
        "contributor", "of it in the merge", "shared mask", "safety mask", "distance left", "its soft token", "in the merge", "backdoor",
    ]  # fmt: skip
    return tables("Contributors", columns, map(_contributor, records))


def _contributor(record: ContributorRecord) -> list[Figure]:
    masks = [f"{value:.2f}" if isinstance(value, float) else "none" for value in (record.shared_mask, record.safety_mask)]
    measured = [record.quality, record.soft_token, record.soft_token_after]
    return [told(record.path), f"{record.kept:.2f}", *masks, *measured, visible(record.backdoor) or "no trigger was named"]


# --- a cleaning


def cleaning_lines(record: CleaningRecord | NotMeasured) -> list[str]:
    """What was cleaned with, and what the choice came to; nothing for another method."""
    if isinstance(record, NotMeasured):
        return []
    return [
        f"cleaning: {visible(record.mode)}, {record.pairs} pairs, {record.held_out} of them held out",
        *(f"canary, {visible(c.kind)}: {told(c.text)} for {told(c.target)}; before: {estimate(c.before)}" for c in record.canaries),
        f"accuracy ({visible(record.accuracy_is)}): {or_why(record.accuracy_before)} → {or_why(record.accuracy_after)}",
        f"pre-training objective {visible(record.pretrain_objective)}: {visible(record.consequence)}",
    ]


def scatter(record: CleaningRecord | NotMeasured) -> list[Table]:
    """One row a point, in the order of the sweep; nothing for another method."""
    if isinstance(record, NotMeasured):
        return []
    counted = [Column(title, right=True) for title in ("learning rate", "step", "passes")]
    rows = [_point(point, at == record.chosen) for at, point in enumerate(record.points)]
    columns: list[str | Column] = [*counted, "accuracy", "canaries work", "residue", "spread", ""]
    return tables("Cleaning of a copy with canaries in it", columns, rows)


def _point(point: CleaningPoint, chosen: bool) -> list[Figure]:
    said = "chosen" if chosen else f"rejected: {visible(point.rejected)}" if point.rejected else ""
    works = tuple(f"{visible(c.kind)}: {rate(c.rate)}" for c in point.canaries)
    figures: list[Figure] = [f"{point.rate:g}", str(point.step), f"{point.passes:.1f}", rate(point.accuracy), works]
    return [*figures, f"{point.residue.value:.2f}", f"{point.spread:.2f}", said]
