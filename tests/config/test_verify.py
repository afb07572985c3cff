"""What `verify` may be asked for together."""

from __future__ import annotations

from pathlib import Path

import pytest

from bdaudit.config import VerifyConfig
from bdaudit.errors import UsageError


def test_a_report_as_evidence_stands_in_for_the_model_before(tmp_path: Path) -> None:
    report = tmp_path / "scan.json"
    assert VerifyConfig(model=tmp_path / "m", triggers=("x",), evidence=report).evidence == report
    with pytest.raises(UsageError, match="stands in for --before"):
        VerifyConfig(model=tmp_path / "m", triggers=("x",), evidence=report, before=tmp_path / "b")


def test_a_report_out_of_the_model_is_no_evidence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="whose maker wrote it"):
        VerifyConfig(model=tmp_path / "m", triggers=("x",), evidence=tmp_path / "m/scan.json")
