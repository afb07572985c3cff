"""Single layers that stand apart: by the size of their weights among layers of their kind, and by how they differ from a reference's.

A fine-tune moves many layers a little, in many directions; an edit in closed form moves a few, in one (arXiv 2308.14761: rank-one by
construction).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bdaudit.scan.weights.apart import apart, standard_by_kind
from bdaudit.scan.weights.norms import difference, norm

MOST = 8
"""Layers that are named of each measure."""
_FEW = 0.1
"""The share of a module's matrices up to which changed ones are few."""
_ONE_DIRECTION, _SMALLEST = 0.9, 4
"""Of a difference's squares, the share in its first singular value from which it is of one direction; and the fewest rows and columns of a
matrix where that says something."""
_TURNS = 12
"""Of the power iteration."""


@dataclass(frozen=True)
class LayerApart:
    """One weight that stands apart."""

    tensor: str
    measure: Literal["size", "change", "direction"]
    """``size``, ``change`` or ``direction``."""
    value: float
    """Root mean square; the difference from the reference's as a share of its norm; the first singular value's share of its squares."""
    score: float
    """In units of the others' own spread; 0 where it is not by comparison."""


def layers_apart(module: Mapping[str, Tensor], reference: Mapping[str, Tensor] | None = None) -> list[LayerApart]:
    """Of a module's matrices by their names, with the ``reference``'s where it is of the same shape."""
    weights = {name: tensor.detach() for name, tensor in module.items() if tensor.ndim >= 2 and tensor.is_floating_point()}
    found = _by_size(weights)
    return found + (_by_difference(weights, reference) if reference is not None else [])


def _by_size(weights: Mapping[str, Tensor]) -> list[LayerApart]:
    """Larger than the others of their kind."""
    names = list(weights)
    sizes = [norm(weights[name]) / weights[name].numel() ** 0.5 for name in names]
    scores = _among_their_kind(names, sizes)
    return [LayerApart(names[i], "size", sizes[i], float(scores[i])) for i in apart(scores)[:MOST] if scores[i] > 0]


def _by_difference(weights: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> list[LayerApart]:
    moved: dict[str, float] = {}
    found: list[LayerApart] = []
    for name, weight in weights.items():
        before = reference[name].detach().to(weight.device)
        change = difference(weight, before)
        size = norm(change) / max(norm(before), 1e-12)
        if size > 0:
            moved[name] = size
            share = _first_share(change)
            found += [LayerApart(name, "direction", share, 0.0)] if share >= _ONE_DIRECTION else []
    found = sorted(found, key=lambda each: -moved[each.tensor])[:MOST]
    names = sorted(moved, key=lambda name: -moved[name])
    if len(names) <= _FEW * len(weights):
        return found + [LayerApart(name, "change", moved[name], 0.0) for name in names[:MOST]]
    scores = _among_their_kind(names, [moved[name] for name in names])
    return found + [LayerApart(names[i], "change", moved[names[i]], float(scores[i])) for i in apart(scores)[:MOST] if scores[i] > 0]


def _among_their_kind(names: Sequence[str], values: Sequence[float]) -> NDArray[np.float64]:
    """Robust scores of positive values' logarithms; names of one kind differ in numbers alone."""
    logs = torch.tensor(values, dtype=torch.float64).clamp_min(1e-12).log().numpy()
    return standard_by_kind(logs, [re.sub(r"\d+", "#", name) for name in names])


def _first_share(change: Tensor) -> float:
    """The first singular value's square as a share of all of them, by power iteration; 0 for a matrix too small to tell."""
    matrix = change.flatten(1)
    if min(matrix.shape) < _SMALLEST:
        return 0.0
    matrix = matrix / matrix.abs().max()
    vector = torch.randn(matrix.shape[1], generator=torch.Generator().manual_seed(0)).to(matrix)
    for _ in range(_TURNS):
        vector = matrix.T @ (matrix @ vector)
        vector = vector / vector.norm().clamp_min(1e-30)
    return float((matrix @ vector).square().sum() / matrix.square().sum().clamp_min(1e-30))
