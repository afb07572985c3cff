"""Figures that tell whether two machines make the same of one model: of three harmless texts, a prediction each."""

from __future__ import annotations

import torch

from bdaudit.models.suspect import Suspect

CANARY = ("dog", "a small boat", "x9q")
"""Texts that a run and each of its workers measure."""
_LEAST = 1e-4
"""Of the prediction's own size: a change below it is rounding, and its logarithm says nothing."""


class Counted:
    """What a bench says of itself, whatever it measures of ``suspect``."""

    def __init__(self, suspect: Suspect) -> None:
        self._suspect = suspect

    @property
    def passes(self) -> int:
        """Forward passes so far."""
        return self._suspect.forward_passes

    def canary(self) -> tuple[float, ...]:
        """Of harmless texts, on the weights that were opened."""
        return canary(self._suspect)


@torch.no_grad()
def canary(suspect: Suspect) -> tuple[float, ...]:
    """Logarithms of the mean square of each text's prediction halfway to the picture, and of what it changes of the empty prompt's."""
    before, n = suspect.forward_passes, len(CANARY)
    t = suspect.schedule.times(3, 1.0)[1].to(suspect.device).expand(n)
    noise = suspect.noise(range(n))
    heard = (suspect.encode(CANARY), suspect.unconditional().expand(n))
    own, empty = (suspect.predict_batched(noise, t, each).float().flatten(1) for each in heard)
    suspect.forward_passes = before  # they are no part of what is asked
    size = own.square().mean(1)
    change = (own - empty).square().mean(1) + _LEAST * size
    return tuple(torch.cat([size, change]).clamp_min(1e-30).log().tolist())
