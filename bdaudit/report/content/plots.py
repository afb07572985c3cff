"""Plots as coordinates of an SVG. Pure numbers, no drawing library."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from bdaudit.records import Calibration, CandidateRecord, LossPoint, NotMeasured
from bdaudit.report.content.blocks import TONES, Curve, Mark, Plot, Tick
from bdaudit.report.content.headline import called
from bdaudit.report.safe import visible
from bdaudit.report.words import number, told

INSET = 8
"""Between the frame and the outermost data."""
MOST_ODDS = 5
RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
NAMED, APART, LABEL = 6, 14, 56
"""Findings that are named in the plot at most, how far apart, and characters of a name."""


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self, count: int) -> tuple[Tick, ...]:
        step = (self.high - self.low) / count
        values = [self.low + step * k for k in range(count + 1)] if step else [self.low]
        return tuple(Tick(self(value), number(value)) for value in values)

    def ends(self) -> tuple[Tick, ...]:
        return tuple(Tick(self(value), f"{value:.0f}") for value in (self.low, self.high))


def _scales(xs: Sequence[float], ys: Sequence[float]) -> tuple[_Scale, _Scale]:
    x = _Scale(min(xs), max(xs), Plot.left + INSET, Plot.right - INSET)
    return x, _Scale(min(ys), max(ys), Plot.bottom - INSET, Plot.top + INSET)


def ranking(ranked: Sequence[CandidateRecord], calibration: Calibration | NotMeasured) -> list[Plot]:
    """Combined score over rank, a mark a candidate, with the controls' highest quantile as a line; none without candidates."""
    if not ranked:
        return []
    quantiles = {} if isinstance(calibration, NotMeasured) else calibration.quantiles
    top = [max(quantiles.items(), key=lambda pair: pair[1])] if quantiles else []
    x, y = _scales([1, max(2, ranked[-1].rank)], [*(item.score for item in ranked), *(value for _, value in top)])
    y = replace(y, low=min(0.0, y.low), high=max(1.0, y.high))
    curves = tuple(
        Curve(f"{x(x.low)},{y(value)} {x(x.high)},{y(value)}", "quantile", said, Tick(y(value), said))
        for name, value in top
        if (said := f"{visible(_per_cent(name))} of harmless texts lie below this line")
    )
    marks = tuple(Mark(x(item.rank), y(item.score), TONES[item.verdict], _says(item), label) for item, label in _labelled(ranked, y))
    beyond = "" if isinstance(calibration, NotMeasured) else f"; below 1 in {calibration.n_controls + 1} that is extrapolated"
    axes = "the texts, the most suspicious first", f"how few harmless texts do as much{beyond}"
    return [Plot("Ranking", _ranking_alt(ranked), *axes, _odds(y), x.ends(), marks, curves)]


def _odds(y: _Scale) -> tuple[Tick, ...]:
    """At most six powers of ten, in words: ``1 in 1,000`` where −log10 p is 3."""
    step = next(step for step in (1, 2, 3, 5, *(10**k for k in range(1, 310))) if (y.high - y.low) / step <= MOST_ODDS)
    return tuple(Tick(y(power), _one_in(power)) for power in range(0, math.floor(y.high) + 1, step))


def _one_in(power: int) -> str:
    if power == 0:
        return "all"
    return f"1 in {10**power:,}" if power <= 4 else f"1 in 10{str(power).translate(RAISED)}"


def _labelled(ranked: Sequence[CandidateRecord], y: _Scale) -> Iterator[tuple[CandidateRecord, str]]:
    """Each candidate, and its name beside its mark where it is a finding and there is room below the name before."""
    named, last = 0, -math.inf
    for item in ranked:
        room = item.verdict != "clean" and named < NAMED and y(item.score) - last >= APART
        named, last = (named + 1, y(item.score)) if room else (named, last)
        yield item, _brief(item.text) if room else ""


def _brief(text: str) -> str:
    """A label's worth of ``text``."""
    said = called(text)
    return said if len(said) <= LABEL else f"{said[: LABEL - 1]}…"


def _per_cent(quantile: str) -> str:
    """``99 %`` for ``0.99``; what is no number stays."""
    try:
        return f"{100 * float(quantile):g} %"
    except ValueError:
        return quantile


def _says(item: CandidateRecord) -> str:
    return f"{item.rank}. {told(item.text)}: score {number(item.score)}, {item.verdict}"


def _ranking_alt(ranked: Sequence[CandidateRecord]) -> str:
    counts = {verdict: sum(item.verdict == verdict for item in ranked) for verdict in ("backdoored", "suspicious", "clean")}
    others = {"accepted": sum("accepted" in item.verdict for item in ranked), "that do what they say": 0}
    others["that do what they say"] = len(ranked) - sum(counts.values()) - others["accepted"]
    counted = ", ".join(f"{count} {verdict}" for verdict, count in [*counts.items(), *((said, n) for said, n in others.items() if n)])
    return f"How far each of {len(ranked)} candidates by rank stands out: {counted}. First: {_says(ranked[0])}."


def loss_curve(loss: Sequence[LossPoint]) -> list[Plot]:
    """The total and each term over the steps; none for fewer than two points."""
    if len(loss) < 2:
        return []
    names = dict.fromkeys(name for point in loss for name in point.terms)
    drawn = {"total": [(point.step, point.total) for point in loss]}
    drawn |= {name: [(point.step, point.terms[name]) for point in loss if name in point.terms] for name in names}
    xs, ys = zip(*(pair for pairs in drawn.values() for pair in pairs), strict=True)
    x, y = _scales(xs, [0.0, *ys])
    curves = tuple(
        Curve(" ".join(f"{x(step)},{y(value)}" for step, value in pairs), f"curve{k % 4}", visible(name))
        for k, (name, pairs) in enumerate(drawn.items())
    )
    alt = f"Loss over {loss[-1].step} steps: total from {number(loss[0].total)} to {number(loss[-1].total)}."
    return [Plot("Loss", alt, "step", "loss", y.ticks(4), x.ends(), (), curves)]
