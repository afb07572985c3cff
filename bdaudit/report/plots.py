"""Plots as coordinates: what the page draws as inline SVG. Pure numbers, no drawing library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bdaudit.records import CandidateRecord, LossPoint, NotMeasured, ScanReport
from bdaudit.report.words import number, told

WIDTH, HEIGHT = 720, 260
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 34


@dataclass(frozen=True)
class Mark:
    """A point, in SVG units, with its class and what it says when pointed at."""

    x: float
    y: float
    kind: str
    says: str


@dataclass(frozen=True)
class Line:
    """A polyline, in SVG units: ``"x,y x,y"``."""

    points: str
    kind: str
    label: str


@dataclass(frozen=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True)
class Plot:
    """Everything an SVG of ``WIDTH`` × ``HEIGHT`` needs."""

    title: str
    alt: str
    x_label: str
    y_label: str
    y_ticks: tuple[Tick, ...]
    x_ticks: tuple[Tick, ...]
    marks: tuple[Mark, ...] = ()
    lines: tuple[Line, ...] = ()
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


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


def _scales(xs: Sequence[float], ys: Sequence[float]) -> tuple[_Scale, _Scale]:
    return _Scale(min(xs), max(xs), LEFT + 8, WIDTH - RIGHT - 8), _Scale(min(ys), max(ys), HEIGHT - BOTTOM - 8, TOP + 8)


def ranking(report: ScanReport) -> Plot | None:
    """Combined score over rank, a mark a candidate, with the controls' highest quantile as a line; None without candidates."""
    ranked = sorted(report.candidates, key=lambda item: item.rank)
    if not ranked:
        return None
    top = _highest_quantile(report)
    x, y = _scales([1, max(2, ranked[-1].rank)], [*(item.score for item in ranked), *(value for _, value in top)])
    lines = tuple(Line(f"{x(x.low)},{y(value)} {x(x.high)},{y(value)}", "quantile", f"controls' quantile {name}") for name, value in top)
    marks = tuple(Mark(x(item.rank), y(item.score), item.verdict, _says(item)) for item in ranked)
    return Plot("Ranking", _ranking_alt(ranked), "rank", "score (log scale)", y.ticks(4), _ends(x), marks, lines)


def _highest_quantile(report: ScanReport) -> list[tuple[str, float]]:
    if isinstance(report.calibration, NotMeasured) or not report.calibration.quantiles:
        return []
    return [max(report.calibration.quantiles.items(), key=lambda pair: pair[1])]


def _says(item: CandidateRecord) -> str:
    return f"{item.rank}. {told(item.text)}: score {number(item.score)}, {item.verdict}"


def _ranking_alt(ranked: Sequence[CandidateRecord]) -> str:
    counts = {verdict: sum(item.verdict == verdict for item in ranked) for verdict in ("backdoored", "suspicious", "clean")}
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    return f"Combined score of {len(ranked)} candidates by rank: {told}. First: {_says(ranked[0])}."


def _ends(x: _Scale) -> tuple[Tick, ...]:
    return (Tick(x(x.low), f"{x.low:.0f}"), Tick(x(x.high), f"{x.high:.0f}"))


def loss_curve(loss: Sequence[LossPoint]) -> Plot | None:
    """The total and each term over the steps; None for fewer than two points."""
    if len(loss) < 2:
        return None
    names = list(dict.fromkeys(name for point in loss for name in point.terms))
    curves = {"total": [(point.step, point.total) for point in loss]}
    curves |= {name: [(point.step, point.terms[name]) for point in loss if name in point.terms] for name in names}
    xs, ys = zip(*(pair for curve in curves.values() for pair in curve), strict=True)
    x, y = _scales(xs, [0.0, *ys])
    lines = tuple(
        Line(" ".join(f"{x(step)},{y(value)}" for step, value in curve), f"curve{k % 4}", name)
        for k, (name, curve) in enumerate(curves.items())
    )
    alt = f"Loss over {loss[-1].step} steps: total from {number(loss[0].total)} to {number(loss[-1].total)}."
    return Plot("Loss", alt, "step", "loss", y.ticks(4), _ends(x), (), lines)
