"""The readout of an exposed copy: every text on the same latents through the model itself and through its copy."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bdaudit.measure.insertion import insert, replaceable, slips
from bdaudit.measure.splicing import PLACES
from bdaudit.pipeline.state import State
from bdaudit.scan.parts import Part
from bdaudit.scan.residual import Residual

Change = tuple[tuple[str, ...], tuple[str, ...]]
"""For each prompt what is counted from, and the prompt with the text in it."""


@dataclass
class Readout:
    """What texts share while one copy is read."""

    part: Part
    state: State
    name: str
    weights: Tensor = field(init=False)
    """(A, 1, 1): one over what the prompts change at each timestep."""
    bases: dict[tuple[str, ...], tuple[Tensor, Tensor]] = field(default_factory=dict)
    """What the model itself and its copy make of what is counted from."""

    def __post_init__(self) -> None:
        prompts = self.part.stage.prompts
        with self.part.patch.teacher():
            moved = self.part.told(prompts) - self.part.told([""] * len(prompts))
        self.weights = 1 / moved.square().mean((1, 2), keepdim=True).clamp_min(1e-12)

    def residuals(self, texts: Sequence[str]) -> Iterator[tuple[str, Residual]]:
        """Each text's, in order; from the state where it is there."""
        for text in texts:
            key = f"{self.name}-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}"
            kept = self.state.read_json(key, tuple[float, float])
            if kept is None:
                found = self._residual(text)
                kept = (found.left, found.level)
                self.state.write_json(key, kept)
            yield text, Residual(*kept)

    def _residual(self, text: str) -> Residual:
        """Over all prompts and timesteps together, so that the prompts and places count where the text does most."""
        plain, changed = change(self.part.stage.prompts, text)
        before, after = self._both(changed), self._base(plain)
        own, copy = (a.double() - b.double() for a, b in zip(before, after, strict=True))
        weights = self.weights.double()
        size = float((weights * own.square()).sum())
        return Residual(
            left=float((weights * own * copy).sum()) / max(size, 1e-12),
            level=float(torch.tensor(max(size / own.numel(), 1e-12)).log()),
        )

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
