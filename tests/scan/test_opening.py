"""A scan's beginning."""

from __future__ import annotations

import pytest

from bdaudit.scan.opening import keyed_seed


def test_a_keyed_seed_is_the_secrets_and_the_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BDAUDIT_KEY", "one")
    seed = keyed_seed("BDAUDIT_KEY", "ab" * 32)
    assert keyed_seed("BDAUDIT_KEY", "ab" * 32) == seed != keyed_seed("BDAUDIT_KEY", "cd" * 32)
    assert 0 <= seed < 2**31
    monkeypatch.setenv("BDAUDIT_KEY", "another")
    assert keyed_seed("BDAUDIT_KEY", "ab" * 32) != seed
