"""A scan's beginning."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from bdaudit.config import ScanConfig
from bdaudit.measure.prompts import default_prompts
from bdaudit.scan.opening import Run, keyed_seed


def test_a_keyed_seed_is_the_secrets_and_the_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BDAUDIT_KEY", "one")
    seed = keyed_seed("BDAUDIT_KEY", "ab" * 32)
    assert keyed_seed("BDAUDIT_KEY", "ab" * 32) == seed != keyed_seed("BDAUDIT_KEY", "cd" * 32)
    assert 0 <= seed < 2**31
    monkeypatch.setenv("BDAUDIT_KEY", "another")
    assert keyed_seed("BDAUDIT_KEY", "ab" * 32) != seed


def test_prompts_are_those_given_else_the_built_in_ones() -> None:
    def of(*given: str, contexts: tuple[str, ...] = ()) -> tuple[str, ...]:
        return Run.prompts.fget(SimpleNamespace(config=ScanConfig(model=Path("m"), prompts=given, contexts=contexts)))  # type: ignore[attr-defined, no-any-return]

    assert of() == default_prompts()
    assert of("a red fox", "an owl") == ("a red fox", "an owl")
    own = ("a red fox", "an owl")
    beside = of(*own, contexts=("heart",))
    assert beside[:2] == own
    assert len(beside) > 2
    assert all("heart" in prompt for prompt in beside[2:])
