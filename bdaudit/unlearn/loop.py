"""A repair by training, whatever the component: AdamW, a warm-up and decay, early stop and checkpoints.

Each step's draw has a seed of its own, so that a run that goes on from a checkpoint ends where an unbroken one does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bdaudit.measure.insertion import item_seed
from bdaudit.models.patch import Patch
from bdaudit.models.training import descend, loss_point, relative_groups
from bdaudit.records import LossPoint

SAVE_EVERY = 30.0
"""Seconds between checkpoints at least; more where writing one takes long."""
DIVERGED = "the loss is {total} at step {step}; try a lower --learning-rate, or --dtype float32"
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
class Course:
    """How long a training goes, from where, and who hears of it."""

    steps: int
    seed: int
    rate: float = 0.0
    """What a step changes a tensor by, as a share of its own RMS; 0 is the component's own."""
    resume: Checkpoint | None = None
    """Where to go on; None begins anew."""
    should_stop: Callable[[int], bool] = lambda step: False
    """Whether to end after ``step`` steps."""
    tick: Callable[[int, str], None] = lambda step, note: None
    """Hears of each step and its loss."""
    save: Callable[[Checkpoint], None] = lambda checkpoint: None


Loss = Callable[[torch.Generator], dict[str, float]]
"""Leaves the gradients of one step's loss in the trained tensors; its terms, ``total`` among them."""


def optimise(patch: Patch, loss: Loss, rate: float, course: Course) -> list[LossPoint]:
    """Optimise ``patch`` in place as far as ``course`` says, at ``rate`` where it names none; the loss by step, resumed steps included.

    Raises:
        BdauditError: the loss is no longer finite.
    """

    def backward(step: int) -> LossPoint:
        generator = torch.Generator().manual_seed(item_seed(course.seed, "unlearn step", step))
        return loss_point(step + 1, loss(generator), DIVERGED)

    def schedule(peak: float, step: int) -> float:
        """Twenty steps of warm-up, and a square root's decay."""
        return peak * float(min(1.0, (step + 1) / 20) * (1 - step / (course.steps + 1)) ** 0.5)

    optimiser = torch.optim.AdamW(relative_groups(patch.parameters, course.rate or rate), weight_decay=0.0, betas=(0.9, 0.99))
    curve, done = _restore(patch, optimiser, course.resume)
    points = descend(optimiser, backward, schedule=schedule, clip=1.0, begun=len(curve))
    saved, cost = time.monotonic(), 0.0
    while not done:
        curve.append(next(points))
        step = len(curve)
        done = step == course.steps or course.should_stop(step)
        now = time.monotonic()
        if done or now - saved >= max(SAVE_EVERY, 20 * cost):
            course.save(_checkpoint(patch, optimiser, curve, done))
            saved, cost = time.monotonic(), time.monotonic() - now
        course.tick(step, " ".join(f"{name} {value:.3f}" for name, value in curve[-1].terms.items()))
    return curve


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
