"""Cleaning runs: one learning rate from start to end, the sweep over several, and which point of it to take. Knows no file."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from bdaudit.errors import BdauditError
from bdaudit.measure import estimates
from bdaudit.measure.insertion import item_seed
from bdaudit.models.tokens import stretched
from bdaudit.models.training import check_finite, descend, loss_point, relative_groups
from bdaudit.records import CanaryLeft, CleaningPoint, Estimate, LossPoint
from bdaudit.unlearn.clean import canary as canaries
from bdaudit.unlearn.clean.augment import put_in, vary, vary_pictures
from bdaudit.unlearn.clean.losses import anchor, contrastive, self_supervised, spread_of
from bdaudit.unlearn.clean.towers import Towers, ranked_first

RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
"""Shares of a tensor's RMS a step; the first is about the published 1e-5 on a CLIP of the usual size."""
BATCH, WEIGHT_DECAY, WARM_UP, POINTS = 64, 0.1, 50, 10
"""The paper's, but for the points at which a run is looked at: its epochs."""
ANCHOR, PUT_IN = 1.0, 20.0
"""Weights beside the contrastive terms: of captions' own hidden states, and of those that captions with a strange text put in should have.

Adam follows whichever term is loudest: at a third, the contrast with pictures drowned the few captions that a trigger was put in.
"""
ACCURACY_KEPT, SPREAD_KEPT = 0.97, 0.5
"""Shares of the start's below which a run is rejected."""
DIVERGED = "cleaning: the loss, or a weight, is no longer finite; try a lower --learning-rate, or --dtype float32"
MAX_LEFT = 0.10
"""A canary counts as gone where the upper end of its rate is at or below it."""


@dataclass(frozen=True)
class Material:
    """What is learned from and measured on; all indices are rows of ``captions``."""

    captions: Sequence[str]
    rows: Sequence[int]
    """To train on."""
    held: Sequence[int]
    """To measure accuracy on: a multiple of 32."""
    strange: Sequence[str]
    """Texts that mean nothing, put into captions' other views, those that come oftener as often as they shall."""
    ids: Callable[[Sequence[str]], Tensor]
    """Captions → int64 (B, L) on the towers' device."""
    pictures: Callable[[Sequence[int]], Tensor] | None
    """Rows → (B, 3, H, W) in 0–1, of the vision tower's size; None for text alone."""


Look = Callable[[int], bool]
"""Is called after each point's last step, with the steps so far; True ends the run."""


def clean(towers: Towers, material: Material, rate: float, steps: int, seed: int, look: Look, precision: Any) -> list[LossPoint]:
    """Train ``towers`` in place: AdamW, warm-up, cosine; the loss by step. ``precision`` makes the block that passes run in.

    Raises:
        BdauditError: the loss or a weight is no longer finite.
    """
    optimiser = torch.optim.AdamW(relative_groups(towers.parameters(), rate), weight_decay=WEIGHT_DECAY)
    teacher, drawn = Towers(copy.deepcopy(towers.encoder), towers.eos), batches(material.rows, steps, seed)

    def loss(step: int) -> LossPoint:
        terms = backward(towers, teacher, material, next(drawn), item_seed(seed, "views", step), precision)
        return loss_point(step + 1, terms, DIVERGED)

    curve: list[LossPoint] = []
    with towers.training():
        for point in islice(descend(optimiser, loss, schedule=lambda peak, step: peak * schedule(step, steps), clip=1.0), steps):
            curve.append(point)
            if point.step in points(steps):
                check_finite(towers.parameters().values(), DIVERGED)
                if look(point.step):
                    break
    return curve


def points(steps: int) -> set[int]:
    """After which steps a run is looked at."""
    return {max(1, round(steps * (k + 1) / POINTS)) for k in range(POINTS)}


def schedule(step: int, steps: int) -> float:
    """Share of the rate: a linear warm-up, half of all steps at most, and half a cosine."""
    warm = min(WARM_UP, max(1, steps // 2))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def batches(rows: Sequence[int], steps: int, seed: int) -> Iterator[list[int]]:
    """``steps`` batches; every row once before any comes again."""
    left: list[int] = []
    for step in range(steps):
        if len(left) < min(BATCH, len(rows)):
            left = random.Random(item_seed(seed, "order", step)).sample(list(rows), len(rows))
        batch, left = left[:BATCH], left[BATCH:]
        yield batch


def backward(towers: Towers, teacher: Towers, material: Material, rows: Sequence[int], seed: int, precision: Any) -> dict[str, float]:
    """Gradients of one batch's loss; its terms, ``total`` among them."""
    rng, captions = random.Random(seed), [material.captions[i] for i in rows]
    cut = len(captions) // 2 if material.strange else 0
    with_strange = [put_in(caption, material.strange, rng) for caption in captions[:cut]]
    ids, varied = material.ids(captions), material.ids([*with_strange, *(vary(caption, rng) for caption in captions[cut:])])
    with precision():
        states, other = towers.states(ids), towers.states(varied)
        with torch.no_grad():
            original = teacher.states(ids)
        scale = towers.log_scale.exp()
        texts = towers.texts(ids, states)
        wanted = stretched(original[:cut], ids[:cut], varied[:cut])
        apart = spread_of(original)
        terms = {"text": self_supervised(texts, towers.texts(varied, other), scale), "anchor": ANCHOR * anchor(states, original, apart)}
        if cut:
            terms["put in"] = PUT_IN * anchor(other[:cut], wanted, apart)
        if material.pictures is not None:
            shown = material.pictures(rows)
            views = vary_pictures(shown, torch.Generator().manual_seed(seed % 2**63))
            seen = towers.pictures(shown)
            terms |= {"pairs": contrastive(seen, texts, scale), "picture": self_supervised(seen, towers.pictures(views), scale)}
    total = torch.stack(list(terms.values())).sum()
    total.backward()  # type: ignore[no-untyped-call]
    return {"total": float(total.detach()), **{name: float(term.detach()) for name, term in terms.items()}}


# --- what became of it ------------------------------------------------------------------------


@dataclass(frozen=True)
class Standing:
    """How good a model's encodings of the held-out captions are."""

    accuracy: Estimate
    spread: float
    """Mean square of what sets captions' hidden states apart."""


class Judge:
    """Measures accuracy; keeps what the model was at the start."""

    def __init__(self, towers: Towers, material: Material) -> None:
        self._towers, self._material = towers, material
        self._ids = material.ids([material.captions[i] for i in material.held])
        self._original = self._texts()[0] if material.pictures is None else None
        self.start = self.standing()

    def standing(self) -> Standing:
        """With pictures: how often a picture's own caption is the nearest of 32; without: the start's encoding in the picture's place."""
        texts, spread = self._texts()
        return Standing(estimates.rate(ranked_first(self._pictures() if self._original is None else self._original, texts)), spread)

    def rejected(self, now: Standing) -> str:
        """Why ``now`` is too far below the start; else nothing."""
        if now.accuracy.value < ACCURACY_KEPT * self.start.accuracy.value:
            return f"accuracy fell from {self.start.accuracy.value:.3f} to {now.accuracy.value:.3f}"
        share = now.spread / max(self.start.spread, 1e-12)
        return f"collapsed: captions lie apart by {share:.2f} of the start's" if share < SPREAD_KEPT else ""

    @torch.no_grad()
    def _texts(self) -> tuple[Tensor, float]:
        found, total, squares = [], torch.zeros(()), 0.0
        for ids in torch.split(self._ids, BATCH):
            states = self._towers.states(ids)
            found.append(self._towers.texts(ids, states))
            total = total.to(states.device) + states.sum(0) / len(self._ids)
            squares += float(states.square().sum()) / len(self._ids)
        return torch.cat(found), (squares - float(total.square().sum())) / total.numel()

    @torch.no_grad()
    def _pictures(self) -> Tensor:
        assert self._material.pictures is not None
        held = list(self._material.held)
        return torch.cat([self._towers.pictures(self._material.pictures(held[i : i + BATCH])) for i in range(0, len(held), BATCH)])


def sweep(
    towers: Towers,
    material: Material,
    planted: Sequence[canaries.Canary],
    encode: canaries.Encode,
    rate: float,
    steps: int,
    seed: int,
    precision: Any,
    tick: Callable[[int, int], None] = lambda *_: None,
) -> tuple[list[CleaningPoint], str]:
    """Clean the copy that ``towers`` hold at one rate and look at it on the way; and why it broke off, if it did."""
    judge, found = Judge(towers, material), list[CleaningPoint]()

    def look(step: int) -> bool:
        now, each = judge.standing(), [canaries.left(encode, canary) for canary in planted]
        why, passes = judge.rejected(now), step * min(BATCH, len(material.rows)) / len(material.rows)
        spread = now.spread / max(judge.start.spread, 1e-12)
        found.append(
            CleaningPoint(
                rate=rate, step=step, passes=passes, accuracy=now.accuracy, spread=spread, rejected=why,
                residue=max((c.residue for c in each), key=lambda r: r.value),
                canaries=tuple(CanaryLeft(kind=c.kind, rate=of.rate, residue=of.residue) for c, of in zip(planted, each, strict=True)),
            )
        )  # fmt: skip
        tick(step, steps)
        return now.accuracy.value < judge.start.accuracy.value / 2

    try:
        clean(towers, material, rate, steps, seed, look, precision)
    except BdauditError as error:
        return found, str(error)
    half = found[-1].accuracy.value < judge.start.accuracy.value / 2
    return found, f"given up after {found[-1].step} steps: {found[-1].rejected}" if half else ""


def choose(found: Sequence[CleaningPoint]) -> int:
    """Of the points at no loss of accuracy, the one that leaves least of the stickiest canary; −1 where all are gone at none."""
    fit = [i for i, point in enumerate(found) if not point.rejected and all(c.rate.high <= MAX_LEFT for c in point.canaries)]
    return min(fit, key=lambda i: found[i].residue.value, default=-1)
