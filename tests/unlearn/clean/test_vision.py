"""The vision tower: its projection in every form that open_clip has, and what does not belong to the suspect."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from bdaudit.errors import InconclusiveError, UsageError
from bdaudit.models.suspect import Suspect
from bdaudit.records import Estimate, NotMeasured
from bdaudit.unlearn.clean.vision import _projection, check_belongs, load_vision, towers_of
from tests.verify.toy import write_clip

MATRIX = torch.arange(12.0).view(4, 3)


def linear() -> nn.Linear:
    layer = nn.Linear(4, 3, bias=False)
    layer.weight.data = MATRIX.T.clone()
    return layer


@pytest.mark.parametrize(
    "model",
    [
        SimpleNamespace(text_projection=nn.Parameter(MATRIX)),
        SimpleNamespace(text_projection=linear()),
        SimpleNamespace(text=SimpleNamespace(text_projection=nn.Parameter(MATRIX))),
    ],
)
def test_the_projection_wherever_open_clip_keeps_it(model: Any) -> None:
    found = _projection(model)
    assert found is not None
    assert torch.equal(found.detach(), MATRIX)


def test_features_are_open_clips_own(tiny_suspect: Suspect, tmp_path: Path) -> None:
    import open_clip

    name = f"local-dir:{write_clip(tmp_path / 'clip')}"
    vision, prepare, log_scale = load_vision(name, tiny_suspect)
    theirs = open_clip.create_model(name).eval()
    pictures = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        mean, std = (torch.tensor(row).view(3, 1, 1) for row in ((0.4, 0.5, 0.6), (0.3, 0.2, 0.25)))
        expected = theirs.encode_image((pictures - mean) / std)
        found = towers_of(tiny_suspect, vision, log_scale).pictures(prepare.resized(pictures))
    assert torch.allclose(found, expected, atol=1e-6)
    assert torch.equal(log_scale, theirs.logit_scale.detach())


def test_a_projection_of_another_width_is_a_usage_error(tiny_suspect: Suspect, monkeypatch: pytest.MonkeyPatch) -> None:
    model = SimpleNamespace(text_projection=torch.zeros(16, 12))
    monkeypatch.setattr("bdaudit.unlearn.clean.vision.load_open_clip", lambda name, flag: SimpleNamespace(model=model))
    with pytest.raises(UsageError, match="from 16 numbers for a text projection; the suspect's text encoder gives 8"):
        load_vision("x", tiny_suspect)


def test_weights_that_are_not_here_are_inconclusive(tiny_suspect: Suspect, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = NotMeasured(reason="fetch them with: hf download x")
    monkeypatch.setattr("bdaudit.unlearn.clean.vision.load_open_clip", lambda name, flag: absent)
    with pytest.raises(InconclusiveError, match="--vision: fetch them with: hf download x"):
        load_vision("x", tiny_suspect)


@pytest.mark.parametrize(("low", "belongs"), [(0.03, False), (0.24, False), (0.26, True), (0.9, True)])
def test_retrieval_near_chance_is_refused(low: float, belongs: bool) -> None:
    accuracy = Estimate(value=low + 0.03, low=low, high=low + 0.06, n=256, method="Wilson 95 %")
    if belongs:
        check_belongs("x", accuracy)
        return
    with pytest.raises(UsageError, match="it is not the CLIP that the suspect's text encoder was taken from"):
        check_belongs("x", accuracy)
