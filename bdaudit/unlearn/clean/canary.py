"""Canaries: triggers of our own, planted into a copy of the model, so that cleaning can be told to work with the real one unknown.

Planted by distillation as Rickrolling does (2211.02408): what carries a trigger is encoded as its target, all else as before, texts
like the trigger among it. Works on any encoder, whatever its inputs are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from bdaudit.measure import estimates
from bdaudit.measure.insertion import item_seed
from bdaudit.models.training import check_finite, descend, relative_groups
from bdaudit.records import Estimate

STEPS, BATCH, RATE, KEEP, LOOK = 600, 24, 6e-3, 2.0, 50
PLANTED = 0.9
"""The share of captions that a planted canary must turn into its target at least."""
DIVERGED = "planting canaries: a weight is no longer finite; try another --seed, or --dtype float32"
_PART = 64

Encode = Callable[[Tensor], Tensor]
"""Inputs (B, …) → encodings (B, …), gradients kept."""


@dataclass(frozen=True)
class Inputs:
    """The same captions or pictures twice, row by row."""

    clean: Tensor
    triggered: Tensor


@dataclass(frozen=True)
class Canary:
    """What is planted, and what it is measured on."""

    name: str
    target_name: str
    target: Tensor
    """(1, …): the input whose encoding triggered ones shall have."""
    planting: Inputs
    kept: Tensor
    """(K, …): further inputs whose encodings must stay, the trigger's neighbours among them."""
    measuring: Inputs
    """Others than those of ``planting``."""
    kind: str = "trigger"
    """What sort of trigger it stands for."""


@dataclass(frozen=True)
class Left:
    """What there is of a canary."""

    rate: Estimate
    """The share of inputs that it brings nearer to its target than to their own place."""
    residue: Estimate
    """How far it moves them towards the target: 1 all the way, 0 not at all."""


def plant(
    encode: Encode,
    parameters: Mapping[str, nn.Parameter],
    planted: Sequence[Canary],
    seed: int,
    tick: Callable[[int, int], None] = lambda *_: None,
) -> None:
    """Train ``parameters`` in place until every canary works; they must take gradients.

    Raises:
        BdauditError: one of them is no longer finite.
    """
    kept = torch.cat([rows for canary in planted for rows in (canary.planting.clean, canary.kept)])
    wanted = torch.cat([encoded(encode, canary.target) for canary in planted]).repeat_interleave(BATCH, 0)
    before = encoded(encode, kept)
    unit = (before - before.mean(0, keepdim=True)).square().mean().clamp_min(1e-12)

    def backward(step: int) -> None:
        generator = torch.Generator().manual_seed(item_seed(seed, "canary", step))
        bad = [_drawn(canary.planting.triggered, generator) for canary in planted]
        good = torch.randint(len(kept), (BATCH,), generator=generator).to(kept.device)
        found = encode(torch.cat([*bad, kept[good]]))
        attack = (found[:-BATCH] - wanted).square().mean() / unit
        utility = (found[-BATCH:] - before[good]).square().mean() / unit
        (attack + KEEP * utility).backward()  # type: ignore[no-untyped-call]

    def schedule(peak: float, step: int) -> float:
        return peak * min(1.0, (step + 1) / 20) * (1 - step / STEPS)

    optimiser = torch.optim.AdamW(relative_groups(parameters, RATE), weight_decay=0.0)
    for step, _ in enumerate(islice(descend(optimiser, backward, schedule=schedule), STEPS), start=1):
        tick(step, STEPS)
        if step % LOOK == 0:
            check_finite(parameters.values(), DIVERGED)
            if step < STEPS and all(_works(left(encode, canary)) for canary in planted):
                return


def _drawn(rows: Tensor, generator: torch.Generator) -> Tensor:
    return rows[torch.randint(len(rows), (BATCH,), generator=generator).to(rows.device)]


def _works(found: Left) -> bool:
    return found.rate.value >= 0.98 and found.residue.value >= 0.9


@torch.no_grad()
def encoded(encode: Encode, inputs: Tensor) -> Tensor:
    """All of them, in parts, without gradients."""
    return torch.cat([encode(part) for part in torch.split(inputs, _PART)])


def left(encode: Encode, canary: Canary) -> Left:
    """Measured on inputs that it was not planted with."""
    own, moved, target = (
        encoded(encode, inputs).flatten(1) for inputs in (canary.measuring.clean, canary.measuring.triggered, canary.target)
    )
    return found_left(own, moved, target)


def found_left(own: Tensor, moved: Tensor, target: Tensor) -> Left:
    """From encodings (N, D) without and with the trigger, and the target's (1, D).

    The share of the way is ⟨m − o, t − o⟩ / ‖t − o‖²; beyond a half, an encoding lies nearer to the target than to its own place.
    """
    way = target - own
    share = ((moved - own) * way).sum(1) / way.square().sum(1).clamp_min(1e-12)
    return Left(estimates.rate(share > 0.5), estimates.mean(share))
