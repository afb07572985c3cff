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


def test_paths_left_out_count_for_nothing(scanned: tuple[ScanReport, Looking]) -> None:
    _, looking = scanned
    with ablation.left_out("paths"):
        again = ablation._Again(looking.all, looking)
    assert again.steps_tier.scores == looking.all.steps_tier.scores
    assert again.last.tier.scores != looking.all.last.tier.scores


def test_without_the_context_there_is_one_p_and_no_price_for_two(scanned: tuple[ScanReport, Looking]) -> None:
    report, looking = scanned
    found = ablation.without(looking, kinds(report))["context"]
    for text, kind in kinds(report).items():
        stratum = looking._for(kind)
        reached = stratum.reached(text, kind, looking.paths[text]) if text in looking.paths else None
        score = stratum.score(text, kind)
        assert found[text] == pytest.approx(-np.log10(stratum.p(score, reached, score >= stratum.is_followed)))
    assert any(found[record.text] > -np.log10(record.p) for record in report.candidates if not record.same_as)
