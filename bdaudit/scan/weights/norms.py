"""Lengths of numbers whose squares may be beyond float32: a hostile weight can be as large as its type holds, and still be finite."""

from __future__ import annotations

import torch
from torch import Tensor


def norm(tensor: Tensor) -> float:
    """The Euclidean norm of all numbers of a floating-point tensor."""
    return float(norms(tensor.reshape(1, -1))[0])


def norms(rows: Tensor) -> Tensor:
    """The Euclidean norm of each row: (N, D) → float64 (N,), on the device of ``rows``. Only rows that float32 has no room for are squared
    in float64."""
    rows = rows.float() if rows.dtype != torch.float64 else rows
    found: Tensor = rows.norm(dim=1).double()
    beyond = ~torch.isfinite(found)
    if bool(beyond.any()):
        found[beyond] = rows[beyond].double().norm(dim=1)
    return found


def difference(one: Tensor, other: Tensor) -> Tensor:
    """``one`` − ``other`` in float32; in float64 where that has no room for it."""
    found = one.float() - other.float()
    return found if bool(torch.isfinite(found).all()) else one.double() - other.double()
