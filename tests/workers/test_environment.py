"""Secrets stay where they are."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from bdaudit.workers.environment import allowed, forget, only_allowed


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "CI_JOB_TOKEN", "XPATH", "PATHX", "SEED_SECRET", "SSH_AUTH_SOCK"])
def test_a_secret_is_not_handed_on(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "canary")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert name not in allowed(os.environ)
    with only_allowed():
        said = subprocess.run([sys.executable, "-c", "import os; print(*os.environ)"], capture_output=True, text=True, check=True).stdout
    assert name not in said.split()
    assert {"PATH", "OMP_NUM_THREADS"} <= set(said.split())
    assert os.environ[name] == "canary", "and this process has it back"
    forget()
    assert name not in os.environ
    assert os.environ["OMP_NUM_THREADS"] == "1"


def test_what_was_set_inside_stays() -> None:
    with only_allowed():
        os.environ["RAY_SET_INSIDE"] = "1"
    assert os.environ.pop("RAY_SET_INSIDE") == "1"
