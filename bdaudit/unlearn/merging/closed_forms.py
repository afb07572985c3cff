"""Merges that take one formula: pure functions of task vectors, the contributors' differences from their base.

A task vector is tensor name → θ_i − θ_base; a tensor that a contributor left alone is not in it and counts as zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from bdaudit.measure.insertion import item_seed

Vector = Mapping[str, Tensor]
"""Tensor name → difference from the base, float32 on the CPU."""

SCALE = 0.3
"""λ of task arithmetic, and of DARE on top of it (2212.04089)."""
DENSITY = 0.2
"""Share of each task vector that TIES keeps (2306.01708)."""
DROP = 0.5
"""Share of each task vector that DARE drops (2311.03099)."""


def average(vectors: Sequence[Vector], seed: int = 0) -> dict[str, Tensor]:
    """(1/N) Σ τ_i (2203.05482)."""
    return {name: sum_of(vectors, name) / len(vectors) for name in names_of(vectors)}


def task_arithmetic(vectors: Sequence[Vector], seed: int = 0) -> dict[str, Tensor]:
    """λ Σ τ_i (2212.04089)."""
    return {name: SCALE * sum_of(vectors, name) for name in names_of(vectors)}


def ties(vectors: Sequence[Vector], seed: int = 0) -> dict[str, Tensor]:
    """Trim, elect a sign for each number, mean of those that agree with it (2306.01708, algorithm 1, λ = 1)."""
    bounds = [_bound(vector) for vector in vectors]
    return {name: _elected([_trimmed(v, name, b) for v, b in zip(vectors, bounds, strict=True)]) for name in names_of(vectors)}


def dare(vectors: Sequence[Vector], seed: int = 0) -> dict[str, Tensor]:
    """Drop numbers at random, scale up what is left, then task arithmetic (2311.03099)."""
    thinned = [{name: _dropped(tensor, item_seed(seed, "dare", i, name)) for name, tensor in v.items()} for i, v in enumerate(vectors)]
    return task_arithmetic(thinned)


CLOSED_FORMS: dict[str, Callable[[Sequence[Vector], int], dict[str, Tensor]]] = {
    "average": average,
    "task-arithmetic": task_arithmetic,
    "ties": ties,
    "dare": dare,
}


def names_of(vectors: Sequence[Vector]) -> Iterator[str]:
    """Every tensor that a contributor changed, once, in the order of their first appearance."""
    yield from dict.fromkeys(name for vector in vectors for name in vector)


def sum_of(vectors: Sequence[Vector], name: str) -> Tensor:
    """Σ τ_i of one tensor."""
    return torch.stack([vector[name] for vector in vectors if name in vector]).sum(0)


def _bound(vector: Vector) -> float:
    """The magnitude above which the largest ``DENSITY`` of the whole vector lie."""
    flat = torch.cat([tensor.abs().flatten() for tensor in vector.values()])
    return float(flat.kthvalue(max(1, round((1 - DENSITY) * len(flat)))).values)


def _trimmed(vector: Vector, name: str, bound: float) -> Tensor | None:
    return torch.where(vector[name].abs() > bound, vector[name], 0.0) if name in vector else None


def _elected(trimmed: Sequence[Tensor | None]) -> Tensor:
    stacked = torch.stack([tensor for tensor in trimmed if tensor is not None])
    agree = (stacked.sign() == stacked.sum(0).sign()) & (stacked != 0)
    return (stacked * agree).sum(0) / agree.sum(0).clamp_min(1)


def _dropped(tensor: Tensor, seed: int) -> Tensor:
    kept = torch.rand(tensor.shape, generator=torch.Generator().manual_seed(seed)) >= DROP
    return tensor * kept / (1 - DROP)
