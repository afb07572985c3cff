"""The loop that every trained component shares: AdamW, a warm-up and decay, early stop and checkpoints.

Each step's draw has a seed of its own, so that a run that goes on from a checkpoint ends where an unbroken one does.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bdaudit.config import UnlearnConfig
from bdaudit.errors import BdauditError
from bdaudit.measure.insertion import item_seed
from bdaudit.records import LossPoint
from bdaudit.unlearn.weights import Patch

SAVE_EVERY = 30.0
"""Seconds between checkpoints at least; more where writing one takes long."""
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Checkpoint:
    """All that the loop needs to go on after step ``len(curve)``."""

    tensors: dict[str, Tensor]
    """``student.NAME``, ``exp_avg.NAME`` and ``exp_avg_sq.NAME`` of each trained tensor, float32."""
    curve: list[LossPoint]
    done: bool
    """Whether the loop has ended."""


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What the loop asks and tells on its way; nothing of it by default."""

    should_stop: Callable[[int], bool] = lambda step: False
    """Whether to end after ``step`` steps."""
    tick: Callable[[int, str], None] = lambda step, note: None
    """Hears of each step and its loss."""
    save: Callable[[Checkpoint], None] = lambda checkpoint: None
    resume: Checkpoint | None = field(default=None)
    """Where to go on; None begins anew."""


Step = Callable[[torch.Generator], dict[str, float]]
"""Leaves the gradients of one step's loss in the trained tensors; its terms, ``total`` among them."""


def optimise(patch: Patch, step_of: Step, config: UnlearnConfig, rate: float, hooks: Hooks) -> list[LossPoint]:
    """Optimise ``patch`` in place until ``config.steps`` or ``hooks.should_stop``; the loss by step, resumed steps included.

    Raises:
        BdauditError: the loss is no longer finite.
    """
    optimiser = torch.optim.AdamW(patch.groups(config.learning_rate or rate), weight_decay=0.0, betas=(0.9, 0.99))
    rates = [group["lr"] for group in optimiser.param_groups]
    curve, done = _restore(patch, optimiser, hooks.resume)
    saved, cost = time.monotonic(), 0.0
    while not done:
        step = len(curve)
        optimiser.zero_grad()
        terms = step_of(torch.Generator().manual_seed(item_seed(config.seed, "unlearn step", step)))
        curve.append(_point(step + 1, terms))
        torch.nn.utils.clip_grad_norm_(list(patch.parameters.values()), 1.0)
        for group, base in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = base * _schedule(step, config.steps)
        optimiser.step()
        done = step + 1 == config.steps or hooks.should_stop(step + 1)
        now = time.monotonic()
        if done or now - saved >= max(SAVE_EVERY, 20 * cost):
            hooks.save(_checkpoint(patch, optimiser, curve, done))
            saved, cost = time.monotonic(), time.monotonic() - now
        hooks.tick(step + 1, " ".join(f"{name} {value:.3f}" for name, value in curve[-1].terms.items()))
    return curve


def _schedule(step: int, steps: int) -> float:
    """Share of the rate: twenty steps of warm-up, and a square root's decay."""
    return float(min(1.0, (step + 1) / 20) * (1 - step / (steps + 1)) ** 0.5)


def _point(step: int, terms: dict[str, float]) -> LossPoint:
    total = terms.pop("total")
    if not math.isfinite(total):
        raise BdauditError(f"the loss is {total} at step {step}; try a lower --learning-rate, or --dtype float32")
    return LossPoint(step=step, total=total, terms=terms)


def _checkpoint(patch: Patch, optimiser: torch.optim.AdamW, curve: list[LossPoint], done: bool) -> Checkpoint:
    tensors = {f"student.{name}": p.data for name, p in patch.parameters.items()}
    for name, parameter in patch.parameters.items():
        tensors |= {f"{moment}.{name}": optimiser.state[parameter][moment] for moment in _MOMENTS if parameter in optimiser.state}
    return Checkpoint(tensors, list(curve), done)


def _restore(patch: Patch, optimiser: torch.optim.AdamW, checkpoint: Checkpoint | None) -> tuple[list[LossPoint], bool]:
    if checkpoint is None:
        return [], False
    for name, parameter in patch.parameters.items():
        parameter.data.copy_(checkpoint.tensors[f"student.{name}"])
        moments = {m: checkpoint.tensors[f"{m}.{name}"] for m in _MOMENTS if f"{m}.{name}" in checkpoint.tensors}
        if moments:
            count = torch.tensor(float(len(checkpoint.curve)))
            optimiser.state[parameter] = {"step": count, **{m: value.to(parameter.device) for m, value in moments.items()}}
    return list(checkpoint.curve), checkpoint.done
