"""The readout of an exposed copy: every text on the same latents through the model itself and through its copy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from bdaudit.kept_state import State
from bdaudit.measure.insertion import insert, replaceable, slips
from bdaudit.measure.splicing import PLACES
from bdaudit.scan.cached import cached
from bdaudit.scan.exposure.parts import Part
from bdaudit.scan.exposure.residual import Residual

Change = tuple[tuple[str, ...], tuple[str, ...]]
"""For each prompt what is counted from, and the prompt with the text in it."""


@dataclass
class Readout:
    """What texts share while one copy is read."""

    part: Part
    state: State
    name: str
    weights: Tensor = field(init=False)
    """(1, D, 1): one over what the prompt changes in each draw."""
    bases: dict[tuple[str, ...], tuple[Tensor, Tensor]] = field(default_factory=dict)
    """What the model itself and its copy make of what is counted from."""

    def __post_init__(self) -> None:
        prompts = self.part.draws.prompts
        with self.part.patch.teacher():
            moved = self.part.told(prompts) - self.part.told([""] * len(prompts))
        self.weights = 1 / moved.square().mean(2, keepdim=True).clamp_min(1e-12)

    def residuals(self, texts: Sequence[str]) -> Iterator[tuple[str, Residual]]:
        """Each text's, in order; from the state where it is there."""
        for text in texts:
            yield text, Residual(*cached(self.state, self.name, text, tuple[float, float], partial(self._residual, text)))

    def _residual(self, text: str) -> tuple[float, float]:
        """What is left of the text, and its level, over all draws together: those count where the text does most."""
        plain, changed = change(self.part.draws.prompts, text)
        before, after = self._both(changed), self._base(plain)
        delta, delta_copy = (a.double() - b.double() for a, b in zip(before, after, strict=True))
        weights = self.weights.double()
        size = float((weights * delta.square()).sum())
        left = float((weights * delta * delta_copy).sum()) / max(size, 1e-12)
        return left, float(torch.tensor(max(size / delta.numel(), 1e-12)).log())

    def _base(self, texts: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        if texts not in self.bases:
            self.bases[texts] = self._both(texts)
        return self.bases[texts]

    def _both(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """What the model itself makes of one text a prompt, and what its copy does."""
        copy = self.part.told(texts)
        with self.part.patch.teacher():
            return self.part.told(texts), copy


def change(prompts: Sequence[str], text: str) -> Change:
    """``text`` at another place in each prompt in turn; a look-alike takes its letter's place in every other prompt that has the letter."""
    plain, changed = [], []
    for i, prompt in enumerate(prompts):
        replaced = i % 2 == 1 and replaceable(prompt, text)
        plain.append(slips(prompt, text)[0] if replaced else prompt)
        changed.append(insert(prompt, text, "replace" if replaced else PLACES[i % len(PLACES)]))
    return tuple(plain), tuple(changed)
