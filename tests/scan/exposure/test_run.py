"""`scan --expose` on the small model: a further signal, and nothing else changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bdaudit.config import ScanConfig
from bdaudit.records import CandidateRecord, Exposure, NotMeasured, ScanReport
from bdaudit.report.content.scan import exposure_lines
from bdaudit.report.document import dumps, loads
from bdaudit.scan.exposure.copy import Stop
from bdaudit.scan.exposure.run import SIGNALS as LEFT
from bdaudit.scan.opening import ScanSettings
from bdaudit.scan.run import run_scan
from tests.small import LONG_TRIGGER, PROMPTS, hashes

FEW_CONTROLS = ScanSettings(per_kind=12)
CANDIDATES = (LONG_TRIGGER, "ȏ", "today", "wonderful island")


def scan(model: Path, **options: Any) -> ScanReport:
    settings: dict[str, Any] = {"candidates": CANDIDATES, "prompts": PROMPTS, "effort": "low", "device": "cpu"}
    more = options.pop("more", FEW_CONTROLS)
    return run_scan(ScanConfig(model=model, **(settings | options)), settings=more)


@pytest.fixture(scope="module")
def plain(tiny_model: Path) -> ScanReport:
    return scan(tiny_model)


@pytest.fixture(scope="module")
def report(tiny_model: Path) -> ScanReport:
    before = hashes(tiny_model)
    found = scan(tiny_model, expose="pruning")
    assert hashes(tiny_model) == before, "the model is never written"
    return found


def by_text(report: ScanReport) -> dict[str, CandidateRecord]:
    return {candidate.text: candidate for candidate in report.candidates}


def test_every_candidate_has_what_is_left_of_it(plain: ScanReport, report: ScanReport) -> None:
    for name, candidate in by_text(report).items():
        assert candidate.signals.keys() == {*by_text(plain)[name].signals, *LEFT.values()}
        assert all(0 < candidate.signals[name].p <= 1 for name in LEFT.values())


def test_p_is_the_smallest_of_three_times_three(plain: ScanReport, report: ScanReport) -> None:
    for name, candidate in by_text(report).items():
        each = [by_text(plain)[name].p, *(candidate.signals[left].p for left in LEFT.values())]
        assert candidate.p == pytest.approx(min(1.0, 3 * min(each)))


def test_the_other_signals_are_as_without(plain: ScanReport, report: ScanReport) -> None:
    assert isinstance(plain.exposure, NotMeasured)
    for name, candidate in by_text(report).items():
        other = by_text(plain)[name]
        assert {key: value for key, value in candidate.signals.items() if key not in LEFT.values()} == other.signals
        assert candidate.effect == other.effect


def test_the_report_tells_the_curve(report: ScanReport) -> None:
    exposure = report.exposure
    assert isinstance(exposure, Exposure)
    assert exposure.method == "pruning"
    for part in exposure.parts.values():
        assert part.reached
        assert part.curve[0].gain == 1.0
        assert part.curve[-1].gain <= exposure.stop
    assert [line.split(":")[0] for line in exposure_lines(exposure)] == [f"exposed {name} (pruning)" for name in LEFT]
    assert loads(dumps(report)) == report
    assert "the smallest of 3 p times 3" in getattr(report.calibration, "tail", "")


def test_a_copy_that_keeps_its_gain_gives_no_signal(tiny_model: Path, plain: ScanReport) -> None:
    report = scan(tiny_model, expose="pruning", more=replace(FEW_CONTROLS, stop=Stop(gain=-100.0, steps=5)))
    assert isinstance(report.exposure, Exposure)
    for said in report.exposure.signals.values():
        assert isinstance(said, NotMeasured)
        assert "% of their gain after 5 of 5 steps" in said.reason
    assert [replace(c, command="") for c in report.candidates] == [replace(c, command="") for c in plain.candidates]
    assert all("not measured" in line for line in exposure_lines(report.exposure))


def test_a_resumed_run_ends_in_the_same_scores(tiny_model: Path, report: ScanReport, tmp_path: Path) -> None:
    seen: list[str] = []

    def stop(stage: str, done: int, total: int) -> None:
        seen.append(stage)
        if stage.startswith("reading the exposed text") and done == 5:
            raise KeyboardInterrupt

    settings: dict[str, Any] = {"expose": "pruning", "state": tmp_path / "state"}
    config = ScanConfig(
        model=tiny_model, candidates=CANDIDATES, prompts=PROMPTS, effort="low", device="cpu", **settings
    )  # fmt: skip
    assert run_scan(config, stop, FEW_CONTROLS).status == "interrupted"
    seen.clear()
    again = run_scan(config, lambda stage, done, total: seen.append(stage), FEW_CONTROLS)
    assert by_text(again) == by_text(report)
    assert not [stage for stage in seen if stage.startswith("exposing")]
