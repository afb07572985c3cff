"""Files that several tests read: a small pipeline and a small CLIP, written once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.verify import toy


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Diffusion directory with random weights."""
    return toy.write_pipeline(tmp_path_factory.mktemp("models") / "clean")


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An open_clip directory with random weights."""
    return toy.write_clip(tmp_path_factory.mktemp("graders") / "clip")
