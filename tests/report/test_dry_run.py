"""How long a run takes, in words, from its passes and what one costs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bdaudit.config import ApplyConfig, RepairConfig, ScanConfig, VerifyConfig
from bdaudit.config.effort import EFFORTS
from bdaudit.records import NotMeasured
from bdaudit.report.dry_run import duration, passes, timed, work

SCAN = ScanConfig(model=Path("m"), candidates=("a", "b"))


def test_passes_grow_with_what_is_asked() -> None:
    assert passes(ScanConfig(model=Path("m"), candidates=("a",) * 102)) - passes(SCAN) == EFFORTS[SCAN.effort].first * 100
    assert passes(VerifyConfig(model=Path("m"), n=10, steps=5)) == 2 * 5 * 10
    two, one = (passes(RepairConfig(model=Path("m"), out=Path("o"), triggers=t)) for t in (("a", "b"), ("a",)))
    assert two > one > 0
    assert passes(ApplyConfig(model=Path("m"), out=Path("o"), from_patch=Path("p"))) == 0


@pytest.mark.parametrize(("seconds", "said"), [(3.2, "3 seconds"), (119, "119 seconds"), (600, "10 minutes"), (7200, "2.0 hours")])
def test_a_duration_is_told_in_the_unit_that_fits(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_the_time_is_told_or_why_it_is_not() -> None:
    assert f"about {duration(0.5 * passes(SCAN))} for {passes(SCAN):,} passes" in timed(SCAN, 0.5)
    assert timed(SCAN, NotMeasured(reason="no room")) == "; time: not measured: no room"
    assert timed(ApplyConfig(model=Path("m"), out=Path("o"), from_patch=Path("p")), 0.5) == ""


def test_the_work_of_a_repair_is_what_its_method_and_its_set_make_of_it() -> None:
    both, solved, trained = (
        work(RepairConfig(model=Path("m"), out=Path("o"), triggers=("a",), **asked))[0][-1]  # type: ignore[arg-type]
        for asked in ({}, {"trainable": "closed-form"}, {"method": "skd-cag"})
    )
    assert solved == "keys and values in closed form"
    assert trained == "48 trajectories and at most 400 training steps"
    assert both.startswith(f"{solved}; where that fails")
    assert both.endswith(trained)


def test_workers_share_what_can_be_shared() -> None:
    verify = VerifyConfig(model=Path("m"), n=10, steps=5)
    repair = RepairConfig(model=Path("m"), out=Path("o"), triggers=("a",))
    for config in (SCAN, verify, repair):
        assert "shared" not in work(config)[1]
        assert "as many workers as the cluster has" in work(replace(config, workers="auto"))[1]
        assert "workers" not in timed(replace(config, workers="auto"), 1.0)
    assert "shared by 4 workers, about 25 for pictures each; grading runs in one" in work(replace(verify, workers="4"))[1]
    assert "the check's pictures are shared by 4 workers, all else runs in one" in work(replace(repair, workers="4"))[1]
    for config in (SCAN, verify):
        told = timed(replace(config, workers="4"), 100.0)
        assert (
            told == timed(config, 100.0) + f"; about {duration(25.0 * passes(config))} where each of 4 workers is as fast as this process"
        )
    assert timed(replace(repair, workers="4"), 100.0) == timed(repair, 100.0), "what is trained is not shared"
