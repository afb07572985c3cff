"""The pictures of one model: each drawn once, each encoded once, shared by everything that looks at them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from bdaudit.verify.grader import Extractor, Grader

Draw = Callable[[Sequence[str], Sequence[int]], Tensor]
"""``draw(texts, seeds)`` → (N, 3, H, W) in 0–1; picture i follows from ``texts[i]`` and ``seeds[i]`` alone."""


class Shot(NamedTuple):
    """What makes a picture: the text, and the seed of its noise."""

    text: str
    seed: int


class Gallery:
    """Pictures by shot, and their features by extractor."""

    def __init__(self, grader: Grader | None) -> None:
        self.grader = grader
        """The CLIP that tells distances; pixels do where there is none."""
        self._pictures: dict[Shot, Tensor] = {}
        self._features: dict[tuple[str, Shot], Tensor] = {}

    def add(self, shots: Iterable[Shot], draw: Draw, chunk: int, tick: Callable[[int, int], None]) -> None:
        """Draw what is missing, ``chunk`` pictures at a time; ``tick(done, total)`` hears of each. What was drawn stays, whatever stops it.

        ``draw`` is not kept: the model behind it can go.
        """
        missing = [shot for shot in dict.fromkeys(shots) if shot not in self._pictures]
        for start in range(0, len(missing), chunk):
            part = missing[start : start + chunk]
            pictures = draw([shot.text for shot in part], [shot.seed for shot in part])
            self._pictures.update(zip(part, pictures, strict=True))
            tick(start + len(part), len(missing))

    def pictures(self, shots: Sequence[Shot]) -> Tensor:
        """(N, 3, H, W) in 0–1 of shots that were added."""
        return torch.stack([self._pictures[shot] for shot in shots])

    def features(self, shots: Sequence[Shot], extractor: Extractor) -> Tensor:
        """(N, D) of shots that were added."""
        missing = [shot for shot in dict.fromkeys(shots) if (extractor.name, shot) not in self._features]
        if missing:
            rows = extractor.image_features(self.pictures(missing))
            self._features.update({(extractor.name, shot): row for shot, row in zip(missing, rows, strict=True)})
        return torch.stack([self._features[extractor.name, shot] for shot in shots])

    def distances(self, shots: Sequence[Shot], others: Sequence[Shot]) -> Tensor:
        """How far apart each pair is, (N,): 1 − cosine of the grader's features (0–2), or mean absolute pixel difference (0–1)."""
        if self.grader is None:
            return (self.pictures(shots) - self.pictures(others)).abs().mean(dim=(1, 2, 3))
        return 1 - (self.features(shots, self.grader) * self.features(others, self.grader)).sum(1)
