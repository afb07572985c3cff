"""The one training loop: an optimiser's steps, each tensor's rate in proportion to its size; and less memory on demand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from bdaudit.errors import BdauditError
from bdaudit.models.patch import Patch
from bdaudit.models.suspect import Suspect
from bdaudit.records import LossPoint

ResultT = TypeVar("ResultT")


def relative_groups(parameters: Mapping[str, nn.Parameter], rate: float) -> list[dict[str, Any]]:
    """Optimiser groups in which a step of Adam changes each tensor by ``rate`` of its own RMS, whatever the model's scale."""
    sizes = {name: max(float(p.detach().float().square().mean().sqrt()), 1e-3) for name, p in parameters.items()}
    return [{"params": [p], "lr": rate * sizes[name]} for name, p in parameters.items()]


def descend(
    optimiser: torch.optim.Optimizer,
    backward: Callable[[int], ResultT],
    *,
    schedule: Callable[[float, int], float] = lambda peak, step: peak,
    clip: float = math.inf,
    begun: int = 0,
) -> Iterator[ResultT]:
    """A step each time it is asked, and what ``backward`` says of it: who asks decides when to stop, what to keep and whom to tell.

    ``backward`` takes the step's number, from ``begun`` on, and leaves the gradients of its loss; their norm over all tensors is cut to
    ``clip``. ``schedule`` makes a step's rate of a group's own and the step's number.
    """
    peaks = [group["lr"] for group in optimiser.param_groups]
    for step in count(begun):
        optimiser.zero_grad()
        said = backward(step)
        if clip < math.inf:
            torch.nn.utils.clip_grad_norm_([p for group in optimiser.param_groups for p in group["params"]], clip)
        for group, peak in zip(optimiser.param_groups, peaks, strict=True):
            group["lr"] = schedule(peak, step)
        optimiser.step()
        yield said


def loss_point(step: int, terms: Mapping[str, float], diverged: str) -> LossPoint:
    """The loss of the ``step``-th step, whose ``terms`` hold the ``total`` beside them.

    Raises:
        BdauditError: the total is not finite; ``diverged`` says so, with ``{total}`` and ``{step}`` in it.
    """
    if not math.isfinite(terms["total"]):
        raise BdauditError(diverged.format(total=terms["total"], step=step))
    return LossPoint(step=step, total=terms["total"], terms={name: term for name, term in terms.items() if name != "total"})


def check_finite(tensors: Iterable[Tensor], diverged: str) -> None:
    """Raises ``BdauditError``, saying ``diverged``, where one of them holds NaN or infinity: no loss tells what its last step did."""
    if not all(bool(tensor.isfinite().all()) for tensor in tensors):
        raise BdauditError(diverged)


def halving(suspect: Suspect, patch: Patch, largest: int, backward: Callable[[], ResultT]) -> ResultT:
    """``backward()``, begun again with half the ``suspect.batch_size`` whenever a GPU's memory runs out; ``largest`` rows are its most."""
    while True:
        try:
            return backward()
        except torch.cuda.OutOfMemoryError:
            if suspect.batch_size == 1:
                raise
        patch.clear_gradients()
        torch.cuda.empty_cache()
        suspect.batch_size = max(1, min(suspect.batch_size, largest) // 2)


@contextmanager
def checkpointed(module: Any, on: bool) -> Iterator[None]:
    """Gradient checkpointing for the block's length: activations are computed again on the way back instead of kept."""
    if on:
        module.enable_gradient_checkpointing()
    try:
        yield
    finally:
        if on:
            module.disable_gradient_checkpointing()
