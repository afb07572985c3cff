"""The canary is the same wherever a model is the same, and another of another model."""

from __future__ import annotations

import torch

from bdaudit.measure.canary import CANARY, canary
from bdaudit.models.suspect import Suspect


def test_one_model_sings_alike_in_any_batch_and_another_does_not(fresh_suspect: Suspect) -> None:
    first = canary(fresh_suspect)
    assert len(first) == 2 * len(CANARY)
    assert len(set(first)) == len(first)
    fresh_suspect.batch_size = 1
    assert torch.allclose(torch.tensor(canary(fresh_suspect)), torch.tensor(first), atol=1e-4)
    with torch.no_grad():
        next(p for p in fresh_suspect.denoiser.module.parameters() if p.ndim == 4).mul_(1.1)
    assert max(abs(a - b) for a, b in zip(canary(fresh_suspect), first, strict=True)) > 0.002
