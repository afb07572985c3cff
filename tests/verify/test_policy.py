"""Bounds from a file: exactly those, or a usage error; and a flag wins."""

from __future__ import annotations

from pathlib import Path

import pytest

from bdaudit.config import VerifyConfig
from bdaudit.errors import UsageError
from bdaudit.verify.policy import BOUNDS, read_policy


def written(tmp_path: Path, text: str) -> Path:
    (tmp_path / "policy.toml").write_text(text, encoding="utf-8")
    return tmp_path / "policy.toml"


def test_every_bound_of_verify_can_be_set(tmp_path: Path) -> None:
    assert {name for name in VerifyConfig.__dataclass_fields__ if name.startswith(("max_", "min_"))} == set(BOUNDS)
    path = written(tmp_path, "[verify]\n" + "\n".join(f"{name} = 0.{k}" for k, name in enumerate(BOUNDS)))
    assert read_policy(path) == {name: k / 10 for k, name in enumerate(BOUNDS)}


@pytest.mark.parametrize(
    "text",
    [
        "[verify]\nmax_ars = 0.05", "[verify]\n", "", "max_asr = 0.05", "[verify]\nmax_asr = 0.05\n[scan]\nalpha = 1",
        "[verify]\nmax_asr = nan", '[verify]\nmax_asr = "0.05"', "[verify]\nmax_asr = true", "verify = 1", "[verify",
        "[verify]\nmax_kid = inf", f"[verify]\nmax_fid = {'9' * 400}", f"[verify]\nmax_fid = {'9' * 5000}", "[verify.max_asr]\nx = 1",
    ],
)  # fmt: skip
def test_what_is_not_exactly_a_policy_is_a_usage_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="--policy"):
        read_policy(written(tmp_path, text))


def test_a_policy_says_what_evidence_it_asks_for(tmp_path: Path) -> None:
    path = written(tmp_path, '[verify]\nevidence = "none"\n')
    assert read_policy(path) == {"evidence": "none"}
    for value in ('"scan.json"', "true", "0", '"None"', "[]"):
        with pytest.raises(UsageError, match="evidence"):
            read_policy(written(tmp_path, f"[verify]\nevidence = {value}\n"))


def test_a_file_that_is_no_text_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "x", tmp_path / "missing", tmp_path):
        with pytest.raises(UsageError, match="--policy"):
            read_policy(path)
