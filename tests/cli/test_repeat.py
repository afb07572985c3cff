"""The command line that makes a run again."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from bdaudit.cli.repeat import repeated
from bdaudit.records import ScanReport


def test_it_stays_one_argument_each() -> None:
    line = repeated(["scan", "my model", "--prompt", "a 'b' \u200b"], seed=3, settings=Path("t.toml"))
    assert shlex.split(line) == ["bdaudit", "scan", "my model", "--prompt", "a 'b' \u200b", "--settings", "t.toml", "--seed", "3"]
    assert repeated(["scan", "m", "--settings=t.toml"], seed=None, settings=Path("t.toml")) == "bdaudit scan m --settings=t.toml"


def test_a_report_has_it_and_the_same_seed(
    bdaudit: Any, verb: Any, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scan_report: ScanReport
) -> None:
    seen = verb("scan", scan_report)
    (tmp_path / "t.toml").write_text("[scan]\nalpha = 0.02\n")
    monkeypatch.setenv("BDAUDIT_SETTINGS", str(tmp_path / "t.toml"))
    line = json.loads(bdaudit("scan", model, "--json", "--report", tmp_path / "s.html").out)["repeat"]
    assert line in (tmp_path / "s.html").read_text(encoding="utf-8")
    monkeypatch.delenv("BDAUDIT_SETTINGS")
    again = json.loads(bdaudit(*shlex.split(line)[1:]).out)["repeat"]
    assert seen[0] == seen[1]
    assert again == line
