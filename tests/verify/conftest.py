"""What several tests use: a small pipeline and a small CLIP, written once, and models whose verdict is known."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from torch import Tensor

from bdaudit.models.load import load
from tests.verify import toy


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Diffusion directory with random weights."""
    return toy.write_pipeline(tmp_path_factory.mktemp("models") / "clean")


@pytest.fixture
def patch(tmp_path: Path) -> Path:
    """The toy backdoor's patch as a file."""
    pixels = (toy.PATCH * 255).byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(tmp_path / "patch.png")
    return tmp_path / "patch.png"


@pytest.fixture
def models(pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of pipelines, each of which draws as the toy model of its name does; graded by colours."""
    for i, name in enumerate(toy.MODELS):
        shutil.copytree(pipeline, tmp_path / "models" / name)
        with (tmp_path / "models" / name / "model_index.json").open("a") as index:
            index.write(" " * i)  # so that each has a digest of its own

    def named(inspection: Any, **settings: Any) -> Any:
        suspect = load(inspection, **settings)
        suspect.name = inspection.path.name  # type: ignore[attr-defined]
        return suspect

    def sample(suspect: Any, texts: Any, seeds: Any, *, steps: int, guidance_scale: float) -> Tensor:
        return toy.draw(suspect.name, texts, seeds)

    monkeypatch.setattr("bdaudit.models.load.load", named)
    monkeypatch.setattr("bdaudit.verify.model.sample", sample)
    monkeypatch.setattr("bdaudit.verify.run.load_grader", lambda name, device: toy.ColourGrader())
    return tmp_path / "models"
