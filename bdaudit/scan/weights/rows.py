"""Rows of an embedding table that stand apart: by their length, by a neighbour that is nearly themselves, by a change from a reference.

A trigger that lives in one row (a learned embedding that was written over an entry; a row that was copied, or made long) leaves the rest
of the table as it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bdaudit.scan.weights.apart import apart, standard
from bdaudit.scan.weights.norms import difference, norms

MOST = 8
"""Rows that are named of each measure."""
LARGEST = 1 << 16
"""Rows of a table whose neighbours are looked for: each is held against all others."""
_SKETCH, _BLOCK = 96, 2048
"""Numbers that a row is sketched by (Johnson and Lindenstrauss 1984), and rows of one block."""
_FEW = 0.01
"""The share of a table up to which changed rows are few."""


@dataclass(frozen=True)
class RowApart:
    """One row that stands apart."""

    row: int
    measure: Literal["length", "neighbour", "change"]
    """``length``, ``neighbour`` or ``change``."""
    value: float
    """Its norm; its cosine with the nearest other row; its distance from the reference's row as a share of that one's norm."""
    score: float
    """In units of the table's own spread; 0 where it is not by comparison: hardly another row changed at all."""
    other: int = -1
    """Of a neighbour: which row."""


def rows_apart(table: Tensor, reference: Tensor | None = None) -> list[RowApart]:
    """Of a table (V, D), with the ``reference``'s where it has one of the same width; its first rows are taken for the same entries'."""
    rows = table.detach().float()
    found = [*_by_length(rows), *(_by_neighbour(rows) if len(rows) <= LARGEST else [])]
    return found + (_by_change(rows, reference.detach().to(rows)) if reference is not None else [])


def _by_length(rows: Tensor) -> list[RowApart]:
    """Rows longer than the others, on a logarithmic scale, or shorter."""
    lengths = norms(rows).cpu()
    logs = standard(lengths.clamp_min(1e-12).log().numpy())
    return [RowApart(i, "length", float(lengths[i]), float(logs[i])) for side in (logs, -logs) for i in apart(side)[:MOST] if side[i] > 0]


def _by_neighbour(rows: Tensor) -> list[RowApart]:
    """Rows that are nearer to another one than any other pair of the table is: a sketch finds the nearest, its own cosine counts."""
    unit = rows / norms(rows)[:, None].clamp_min(1e-12).to(rows)
    nearest = _nearest(unit)
    cosines = (unit * unit[nearest]).sum(1).double().cpu()
    angles = -torch.log((1 - cosines).clamp_min(1e-9)).numpy()
    scores = standard(angles)
    found = [i for i in apart(scores) if scores[i] > 0]
    return [RowApart(i, "neighbour", float(cosines[i]), float(scores[i]), int(nearest[i])) for i in found[:MOST]]


def _nearest(unit: Tensor) -> Tensor:
    """The index of each row's nearest other one: (V, D) → int64 (V,)."""
    if unit.shape[1] > _SKETCH:
        generator = torch.Generator().manual_seed(0)
        unit = unit @ (torch.randn(unit.shape[1], _SKETCH, generator=generator) / _SKETCH**0.5).to(unit)
    found = []
    for start in range(0, len(unit), _BLOCK):
        near = unit[start : start + _BLOCK] @ unit.T
        near[torch.arange(len(near)), torch.arange(start, start + len(near))] = -torch.inf
        found.append(near.argmax(1))
    return torch.cat(found)


def _by_change(rows: Tensor, reference: Tensor) -> list[RowApart]:
    """Rows that moved where the others did not, or farther than they did."""
    shared = min(len(rows), len(reference))
    before = reference[:shared]
    moved = (norms(difference(rows[:shared], before)) / norms(before).clamp_min(1e-12)).cpu()
    changed = torch.nonzero(moved > 0).flatten().tolist()
    if len(changed) <= max(1, _FEW * shared):
        farthest = sorted(changed, key=lambda i: -float(moved[i]))[:MOST]
        return [RowApart(i, "change", float(moved[i]), 0.0) for i in farthest]
    scores = standard(moved.clamp_min(1e-12).log().numpy())
    return [RowApart(i, "change", float(moved[i]), float(scores[i])) for i in apart(scores)[:MOST] if scores[i] > 0]
