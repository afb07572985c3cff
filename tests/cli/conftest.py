"""The command line in this process, with small verbs in place of the real ones."""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bdaudit import cli
from bdaudit.cli import default_state

WANTED = default_state.wanted


@dataclass
class Ended:
    code: int
    out: str
    err: str

    @property
    def last(self) -> str:
        return self.err.splitlines()[-1]


@pytest.fixture
def bdaudit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Runs ``bdaudit ARGUMENTS`` in this process; without ``--state`` nothing is kept, but for tests that ask for ``in_cache``."""
    monkeypatch.setattr("bdaudit.cli.default_state.wanted", lambda config: False)
    for name in (*cli.QUIET_AND_OFFLINE, "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.delenv("BDAUDIT_DEBUG", raising=False)

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["bdaudit", *map(str, arguments)])
        code = cli.main()
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return run


@pytest.fixture
def in_cache(bdaudit: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Runs keep what they have in a cache of the test's own, as they do where nobody says otherwise; the cache."""
    monkeypatch.setattr("bdaudit.cli.default_state.wanted", WANTED)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Puts a function in a verb's place; the list it returns gets each config."""

    def put(name: str, result: Any) -> list[Any]:
        seen: list[Any] = []

        def run(config: Any, progress: Any) -> Any:
            seen.append(config)
            if isinstance(result, BaseException):
                raise result
            return result(config, progress) if callable(result) else result

        module = types.ModuleType(f"bdaudit.{name}.run")
        setattr(module, f"run_{name}", run)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return seen

    return put


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    return path
