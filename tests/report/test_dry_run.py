"""How long a run takes, in words, from its passes and what one costs."""

from __future__ import annotations

from pathlib import Path

import pytest

from bdaudit.config import ApplyConfig, RepairConfig, ScanConfig, VerifyConfig
from bdaudit.config.effort import EFFORTS
from bdaudit.records import NotMeasured
from bdaudit.report.dry_run import duration, passes, timed

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
