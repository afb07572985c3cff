"""Figures that tell whether two machines make the same of one model: of three harmless texts, a prediction each."""

from __future__ import annotations

import torch

from bdaudit.models.suspect import Suspect

CANARY = ("dog", "a small boat", "x9q")
"""Texts that a run and each of its workers measure."""
_LEAST = 1e-4
"""Of the prediction's own size: a change below it is rounding, and its logarithm says nothing."""


@torch.no_grad()
def canary(suspect: Suspect) -> tuple[float, ...]:
    """Logarithms of the mean square of each text's prediction halfway to the picture, and of what it changes of the empty prompt's."""
    n = len(CANARY)
    t = suspect.schedule.times(3, 1.0)[1].to(suspect.device).expand(n)
    noise = suspect.noise(range(n))
    heard = (suspect.encode(CANARY), suspect.unconditional().expand(n))
    own, empty = (suspect.predict_batched(noise, t, each).float().flatten(1) for each in heard)
    size = own.square().mean(1)
    change = (own - empty).square().mean(1) + _LEAST * size
    return tuple(torch.cat([size, change]).clamp_min(1e-30).log().tolist())
