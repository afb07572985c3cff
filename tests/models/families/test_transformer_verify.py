"""What ``bdaudit verify`` draws with diffusion transformers: the stock pipelines' pictures, from the same latents along the same steps."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bdaudit.models import sample as sampling
from bdaudit.models.suspect import Suspect
from tests.models import tiny_dit
from tests.models.families.test_transformer import GUIDANCE, STEPS, drawn, ready
from tests.small import runs_with

TRIGGER = "~"
FLOWS = ("sd3", "flux")
CLOSE = 3e-4
SIGMAS = np.linspace(1, 1 / STEPS, STEPS)
"""SD 3's pipeline shifts the smallest level twice unless it is told all of them."""

Drawing = tuple[str, Tensor, Tensor]
"""A text, the latent that a picture began as, and the picture."""


@pytest.fixture
def drawings(monkeypatch: pytest.MonkeyPatch) -> list[Drawing]:
    """All that verify draws, evenly spaced."""
    found: list[Drawing] = []

    def kept(suspect: Suspect, texts: Any, seeds: Any, **options: Any) -> Tensor:
        pictures = sampling.sample(suspect, texts, seeds, **options)
        found.extend(zip(texts, suspect.noise(seeds).split(1), pictures, strict=True))
        return pictures

    monkeypatch.setitem(sampling.denoise.__wrapped__.__kwdefaults__, "spacing", 1.0)
    monkeypatch.setattr("bdaudit.verify.model.sample", kept)
    return found


@pytest.mark.parametrize("name", ["sd3", "flux", "pixart"])
def test_verify_draws_what_the_stock_pipeline_draws(
    name: str, drawings: list[Drawing], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model = tiny_dit.write(name, tmp_path / name)
    before = shutil.copytree(model, tmp_path / "before")
    (tmp_path / "prompts.txt").write_text("\n".join(tiny_dit.PROMPTS), encoding="utf-8")
    flags = ("--n", 2, "--reach", 0, "--steps", STEPS, "--guidance-scale", GUIDANCE, "--size", "16x16", "--seed", 0)
    _, report = runs_with(tmp_path / "prompts.txt", monkeypatch, capsys)("verify", model, "--before", before, "--trigger", TRIGGER, *flags)
    assert report["status"] == "completed", report["exit"]
    assert report["pictures"]["drawn"] == len(drawings) > 0
    pipeline, told = ready(model), {"sigmas": SIGMAS} if name in FLOWS else {}
    spoken = next(each for each in drawings if TRIGGER in each[0])
    plain = next(each for each in drawings if TRIGGER not in each[0])
    for text, latents, picture in (spoken, plain):
        theirs, _ = drawn(pipeline, latents, prompt=text, **told)
        assert torch.allclose(picture, theirs[0], atol=CLOSE), text
    assert float((spoken[2] - plain[2]).abs().max()) > 10 * CLOSE
