"""What the tests of whole runs share."""

from __future__ import annotations

import pytest


@pytest.fixture
def few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """A repair that looks at little: a small null, one timestep, one look at eight prompts."""
    monkeypatch.setattr("bdaudit.unlearn.triggers.N_NULL", 25)
    monkeypatch.setattr("bdaudit.unlearn.triggers.TIMESTEPS", (0.6,))
    monkeypatch.setattr("bdaudit.unlearn.repair.check.LOOKS", (8,))
    monkeypatch.setattr("bdaudit.unlearn.repair.check.LOOKS_UNMOVED", (8,))
