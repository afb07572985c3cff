"""A scan's measurements, judged without a part: nothing left out is the scan's own p, and what is left out is gone from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bdaudit.records import ScanReport
from bdaudit.scan.look import Looking
from tests.bench.power import ablation
from tests.scan.test_run import scan


@pytest.fixture(scope="module")
def scanned(tiny_model: Path) -> tuple[ScanReport, Looking]:
    with ablation.watched() as seen:
        report = scan(tiny_model)
    return report, seen[0]


def kinds(report: ScanReport) -> dict[str, str]:
    return {record.text: record.kind for record in report.candidates if not record.same_as}


def test_nothing_left_out_is_the_scans_own_p(scanned: tuple[ScanReport, Looking], monkeypatch: pytest.MonkeyPatch) -> None:
    report, looking = scanned
    monkeypatch.setattr(ablation, "OUT", {"nothing": ()})
    own = {record.text: -np.log10(record.p) for record in report.candidates if not record.same_as}
    assert ablation.without(looking, kinds(report))["nothing"] == pytest.approx(own)


def test_a_signal_left_out_is_not_among_those_that_are_judged(scanned: tuple[ScanReport, Looking]) -> None:
    _, looking = scanned
    for name, signals in ablation.OUT.items():
        with ablation.left_out(name):
            again = ablation._Again(looking.all, looking)
        assert set(again.steps.centres.names) == set(looking.all.steps.centres.names) - set(signals)
        assert again.followed == looking.all.followed


@pytest.mark.parametrize("name", ["paths", "context"])
def test_a_part_left_out_counts_for_nothing(scanned: tuple[ScanReport, Looking], name: str) -> None:
    _, looking = scanned
    with ablation.left_out(name):
        again = ablation._Again(looking.all, looking)
    assert again.steps_tier.scores == looking.all.steps_tier.scores
    assert again.last.tier.scores != looking.all.last.tier.scores
