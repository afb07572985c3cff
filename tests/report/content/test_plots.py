"""Coordinates lie in the frame, keep their order, and survive flat data."""

from __future__ import annotations

from dataclasses import replace

from bdaudit.records import Calibration, LossPoint, NotMeasured, ScanReport
from bdaudit.report.content.plots import loss_curve, ranking


def test_higher_scores_stand_higher_and_later_ranks_further_right(scan_report: ScanReport) -> None:
    (plot,) = ranking(scan_report.candidates, scan_report.calibration)
    xs, ys = [mark.x for mark in plot.marks], [mark.y for mark in plot.marks]
    assert xs == sorted(xs)
    assert ys == sorted(ys)
    assert min(xs) >= plot.left
    assert max(xs) <= plot.right
    assert min(ys) >= plot.top
    assert max(ys) <= plot.bottom
    assert [sum(mark.tone == tone for mark in plot.marks) for tone in ("bad", "warn", "good")] == [6, 5, 30]


def test_the_controls_highest_quantile_is_drawn_and_named(scan_report: ScanReport) -> None:
    (plot,) = ranking(scan_report.candidates, scan_report.calibration)
    assert [curve.label for curve in plot.curves] == ["99 % of harmless texts lie below this line"]
    (uncalibrated,) = ranking(scan_report.candidates, NotMeasured(reason="x"))
    assert uncalibrated.curves == ()


def test_the_heights_are_told_in_words(scan_report: ScanReport) -> None:
    first, *others = scan_report.candidates
    far = [replace(first, score=11.6), *(replace(item, score=0.0) for item in others)]
    (plot,) = ranking(far, scan_report.calibration)
    assert [tick.label for tick in plot.y_ticks] == ["all", "1 in 1,000", "1 in 10⁶", "1 in 10⁹"]
    assert plot.y_ticks[0].at == max(mark.y for mark in plot.marks)
    assert isinstance(scan_report.calibration, Calibration)
    assert f"below 1 in {scan_report.calibration.n_controls + 1} that is extrapolated" in plot.y_label
    (near,) = ranking([replace(item, score=0.3) for item in far], NotMeasured(reason="x"))
    assert [tick.label for tick in near.y_ticks] == ["all", "1 in 10"]
    (beyond,) = ranking([replace(item, score=300.0) for item in far], NotMeasured(reason="x"))
    assert [tick.label for tick in beyond.y_ticks] == ["all", "1 in 10¹⁰⁰", "1 in 10²⁰⁰", "1 in 10³⁰⁰"]


def test_one_candidate_and_none(scan_report: ScanReport) -> None:
    (one,) = ranking(scan_report.candidates[:1], NotMeasured(reason="x"))
    assert len(one.marks) == 1
    assert ranking([], scan_report.calibration) == []


def test_a_term_that_starts_late_has_a_shorter_curve() -> None:
    (plot,) = loss_curve([LossPoint(step=k, total=1.0 - k / 10, terms={"b": 0.1} if k else {}) for k in (0, 5, 9)])
    assert {curve.label: len(curve.points.split()) for curve in plot.curves} == {"total": 3, "b": 2}


def test_a_flat_curve_and_a_single_point() -> None:
    assert loss_curve([LossPoint(step=0, total=0.0, terms={}), LossPoint(step=1, total=0.0, terms={})])
    assert loss_curve([LossPoint(step=0, total=1.0, terms={})]) == []
