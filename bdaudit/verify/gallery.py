"""The pictures of one model: each drawn once, each encoded once, kept on disk where there is a place for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from bdaudit.errors import UsageError
from bdaudit.measure.grader import Extractor, Grader
from bdaudit.verify.state import Shelf

Draw = Callable[[Sequence[str], Sequence[int]], Tensor]
"""``draw(texts, seeds)`` → (N, 3, H, W) in 0–1; picture i follows from ``texts[i]`` and ``seeds[i]`` alone."""


class Shot(NamedTuple):
    """What makes a picture: the text, and the seed of its noise."""

    text: str
    seed: int


Block = tuple[Shot, ...]
"""Shots that are drawn in one go."""
Pair = tuple[Shot, Shot]
"""A prompt as it is and with the trigger, on one seed."""


def drawn_here(blocks: Sequence[Block], draw: Draw) -> Iterator[tuple[int, Tensor]]:
    """Number and pictures of each block, one after the other."""
    for number, block in enumerate(blocks):
        yield number, draw([shot.text for shot in block], [shot.seed for shot in block])


class Gallery:
    """Pictures by shot, and their features by extractor."""

    def __init__(self, grader: Grader | None, state: Path | None = None, made_by: Sequence[object] = ()) -> None:
        """``made_by`` is what a picture follows from besides its shot: the model's digest and the settings of the sampler."""
        self.grader = grader
        """The CLIP that tells distances; pixels do where there is none."""
        self.drawn = self.reused = 0
        self._shelf = Shelf(state, "picture", *made_by)
        self._maps_shelf = Shelf(state, "attention", *made_by)
        self._state = state
        self._pictures: dict[Shot, Tensor] = {}
        self._features: dict[tuple[str, Shot], Tensor] = {}
        self._maps: dict[Pair, Tensor] = {}

    @property
    def damaged(self) -> int:
        """Pictures that were kept and are damaged, so that they were drawn again."""
        return self._shelf.damaged

    def recall(self, shots: Iterable[Shot], together: int) -> list[Block]:
        """Take what was kept on disk; blocks of up to ``together`` shots, those of them of which something is missing.

        A block's make-up, and with it every figure, follows from the shots alone that were not added before, whatever was kept.

        Raises:
            UsageError: what was kept is no picture, or of another size than the rest.
        """
        new = [shot for shot in dict.fromkeys(shots) if shot not in self._pictures]
        for shot in new:
            kept = self._shelf.get(*shot)
            if kept is not None:
                self._pictures[shot] = self._checked(kept)
                self.reused += 1
        blocks = [tuple(new[at : at + together]) for at in range(0, len(new), together)]
        return [block for block in blocks if any(shot not in self._pictures for shot in block)]

    def _checked(self, picture: Tensor) -> Tensor:
        size = next(iter(self._pictures.values())).shape if self._pictures else picture.shape
        if picture.ndim != 3 or len(picture) != 3 or picture.shape != size or picture.min() < 0 or picture.max() > 1:
            raise UsageError(f"--state {self._state} holds what no run of this model wrote ({tuple(picture.shape)}); delete it")
        return picture

    def add(self, shots: Iterable[Shot], draw: Draw, chunk: int, tick: Callable[[int, int], None]) -> None:
        """Draw what is missing, in blocks of up to ``chunk`` pictures; ``tick(done, total)`` hears of each block.

        ``draw`` is not kept: the model behind it can go.
        """
        blocks = self.recall(shots, chunk)
        self.keep(blocks, drawn_here(blocks, draw), tick)

    def keep(self, blocks: Sequence[Block], drawn: Iterable[tuple[int, Tensor]], tick: Callable[[int, int], None]) -> None:
        """Take the pictures (N, 3, H, W) of ``blocks``, by number, as they come in. What was drawn stays, whatever stops it."""
        total, first = self.lacking(blocks), self.drawn
        for number, pictures in drawn:
            for shot, picture in zip(blocks[number], pictures, strict=True):
                if shot not in self._pictures:
                    self._pictures[shot] = self._checked(picture)
                    self._shelf.put(picture, *shot)
                    self.drawn += 1
            tick(self.drawn - first, total)

    def lacking(self, blocks: Sequence[Block]) -> int:
        """How many pictures of ``blocks`` are missing."""
        return sum(shot not in self._pictures for block in blocks for shot in block)

    def recall_maps(self, pairs: Iterable[Pair]) -> list[Pair]:
        """Take the attention maps that were kept on disk; the pairs that have none yet."""
        kept = {pair: self._maps_shelf.get(*pair[0], *pair[1]) for pair in pairs if pair not in self._maps}
        self._maps |= {pair: found for pair, found in kept.items() if found is not None and found.ndim == 2}
        return [pair for pair in pairs if pair not in self._maps]

    def add_maps(self, pairs: Sequence[Pair], maps: Tensor) -> None:
        """Keep the trigger's attention (N, h, w) in each pair's second picture."""
        for pair, found in zip(pairs, maps, strict=True):
            self._maps[pair] = found
            self._maps_shelf.put(found, *pair[0], *pair[1])

    def maps(self, pairs: Sequence[Pair]) -> Tensor:
        """(N, h, w) of pairs that were added."""
        return torch.stack([self._maps[pair] for pair in pairs])

    def holds(self, shot: Shot) -> bool:
        """Whether ``shot`` was added."""
        return shot in self._pictures

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

    def distances(self, shots: Sequence[Shot], others: Sequence[Shot], gallery: Gallery | None = None) -> Tensor:
        """How far apart each pair is, (N,): 1 − cosine of the grader's features (0–2), or mean absolute pixel difference (0–1).

        ``others`` are of another model's ``gallery`` where one is named.
        """
        theirs = gallery or self
        if self.grader is None:
            return (self.pictures(shots) - theirs.pictures(others)).abs().mean(dim=(1, 2, 3))
        return 1 - (self.features(shots, self.grader) * theirs.features(others, self.grader)).sum(1)
