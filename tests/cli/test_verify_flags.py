"""Where `verify` takes its bounds from and keeps its pictures, as typed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def written(tmp_path: Path, text: str) -> Path:
    (tmp_path / "policy.toml").write_text(text, encoding="utf-8")
    return tmp_path / "policy.toml"


def test_on_the_command_line(bdaudit: Callable[..., Any], verb: Callable[..., list[Any]], model: Path, tmp_path: Path) -> None:
    seen = verb("verify", KeyboardInterrupt())
    path = written(tmp_path, "[verify]\nmax_asr = 0.2\nmin_clip_ratio = 0.9\n")
    bdaudit("verify", model, "--policy", path, "--max-asr", "0.1")
    bdaudit("verify", model, "--policy", path, "--max-asr", "0")
    bdaudit("verify", model, "--policy", path)
    assert [(config.max_asr, config.min_clip_ratio, config.policy) for config in seen] == [
        (0.1, 0.9, path),
        (0.0, 0.9, path),
        (0.2, 0.9, path),
    ]
    assert bdaudit("verify", model, "--policy", written(tmp_path, "[verify]\nmaxasr = 0.2")).code == 2
    assert bdaudit("verify", model, "--policy", written(tmp_path, "[verify]\nmax_asr = 2")).code == 2
    assert len(seen) == 3


def test_what_a_low_rate_rests_on(bdaudit: Callable[..., Any], verb: Callable[..., list[Any]], model: Path, tmp_path: Path) -> None:
    seen = verb("verify", KeyboardInterrupt())
    (tmp_path / "scan.json").write_text("{}")
    (model / "scan.json").write_text("{}")
    bdaudit("verify", model, "--trigger", "cf")
    bdaudit("verify", model, "--trigger", "cf", "--evidence", "none")
    bdaudit("verify", model, "--trigger", "cf", "--evidence", tmp_path / "scan.json")
    bdaudit("verify", model, "--policy", written(tmp_path, '[verify]\nevidence = "none"'), "--evidence", "required")
    bdaudit("verify", model, "--policy", written(tmp_path, '[verify]\nevidence = "none"'))
    assert [config.evidence for config in seen] == ["required", "none", tmp_path / "scan.json", "required", "none"]
    for refused in (("--evidence", "None"), ("--evidence", model / "scan.json"), ("--evidence", tmp_path), ("--before", tmp_path / "no")):
        assert bdaudit("verify", model, "--trigger", "cf", *refused).code == 2
    assert len(seen) == 5


def test_where_pictures_are_kept(bdaudit: Callable[..., Any], verb: Callable[..., list[Any]], model: Path, tmp_path: Path) -> None:
    seen = verb("verify", KeyboardInterrupt())
    bdaudit("verify", model)
    bdaudit("verify", model, "--report", tmp_path / "verify.json", "--report", tmp_path / "other.html")
    bdaudit("verify", model, "--report", tmp_path / "verify.json", "--state", tmp_path / "kept")
    assert [config.state for config in seen] == [None, tmp_path / "verify.state", tmp_path / "kept"]
    (tmp_path / "reference").mkdir()
    assert bdaudit("verify", model, "--state", model / "state").code == 2
    assert bdaudit("verify", model, "--reference", tmp_path / "reference", "--state", tmp_path / "reference" / "s").code == 2
    assert len(seen) == 3
