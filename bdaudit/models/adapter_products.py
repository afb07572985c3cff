"""What an adapter's factors make of a weight: LoRA (2106.09685), LoCon with its core, LoHa and LoKr (2309.14859), full differences, DoRA.

Pure functions of tensors. Shapes are checked before anything is multiplied: a product is never larger than the weight that it changes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NoReturn

import torch
from torch import Tensor

from bdaudit.errors import BdauditError, InconclusiveError

Held = Mapping[str, Tensor]
"""Factor → tensor, float32."""


def product(held: Held, shape: torch.Size, where: str) -> tuple[Tensor, int | None]:
    """The factors' product in the weight's own shape, before α; and their rank, None where α has no part in it.

    Raises:
        BdauditError: factors that are missing, or do not make such a weight.
        InconclusiveError: factors of two kinds.
    """
    roles = set(held)
    if not roles:
        raise BdauditError(f"{where} has an alpha and no factors; the adapter is damaged")
    if roles == {"diff"}:
        return _shaped(held["diff"], held, shape, where), None
    if roles <= {"down", "up", "mid", "magnitude"}:
        _complete(held, {"down", "up"}, where)
        return _tucker(held, shape, where) if "mid" in held else _lora(held, shape, where)
    if all(role.startswith("hada_") for role in roles):
        return _loha(held, shape, where)
    if all(role.startswith("lokr_") for role in roles):
        return _lokr(held, shape, where)
    raise InconclusiveError(f"{where} mixes {', '.join(sorted(roles))}; one kind of adapter for each layer is supported")


def dora(weight: Tensor, delta: Tensor, magnitude: Tensor, where: str, axis: int = 0) -> Tensor:
    """m · (W + ΔW) / ‖W + ΔW‖ − W, the norm of each output (2402.09353, equation 5) or, ``axis`` 1, input; scale, α are in ``delta``."""
    if magnitude.numel() != weight.shape[axis]:
        what = f"{weight.shape[axis]} {'inputs' if axis else 'outputs'}"
        raise BdauditError(f"{where}: a magnitude of shape {tuple(magnitude.shape)} for {what}; expected one for each")
    moved = weight + delta
    norm = moved.transpose(0, axis).flatten(1).norm(dim=1)
    aimed: Tensor = moved * (magnitude.flatten() / norm).view([-1 if i == axis else 1 for i in range(weight.ndim)])
    return aimed - weight


def measured_axis(magnitude: Tensor, shape: torch.Size, where: str) -> int:
    """Which axis of the weight LyCORIS' ``dora_scale`` has a magnitude for each of: outputs (o, 1, …) or inputs (1, i, …).

    Raises:
        BdauditError: neither.
    """
    for axis in (0, 1):
        if tuple(magnitude.shape) == tuple(size if i == axis else 1 for i, size in enumerate(shape)):
            return axis
    raise BdauditError(f"{where}: dora_scale {tuple(magnitude.shape)} has no magnitude for each output, nor input, of {tuple(shape)}")


def _lora(held: Held, shape: torch.Size, where: str) -> tuple[Tensor, int]:
    down, up = held["down"], held["up"]
    fits = down.ndim >= 2 and up.ndim >= 2 and up.shape[1] == down.shape[0] and up.shape[2:].numel() == 1
    if not fits or not _makes((up.shape[0], *down.shape[1:]), shape):
        _unfit(held, shape, where)
    return (up.flatten(1) @ down.flatten(1)).reshape(shape), down.shape[0]


def _tucker(held: Held, shape: torch.Size, where: str) -> tuple[Tensor, int]:
    """A convolution's product over a core: up · mid · down."""
    down, up, mid = held["down"], held["up"], held["mid"]
    if min(down.ndim, up.ndim) < 2 or mid.ndim != 4 or down.shape[2:].numel() != 1 or up.shape[2:].numel() != 1:
        _unfit(held, shape, where)
    if mid.shape[:2] != (up.shape[1], down.shape[0]) or (up.shape[0], down.shape[1], *mid.shape[2:]) != tuple(shape):
        _unfit(held, shape, where)
    made: Tensor = torch.einsum("or,rskl,si->oikl", up.flatten(1), mid, down.flatten(1))
    return made, down.shape[0]


def _loha(held: Held, shape: torch.Size, where: str) -> tuple[Tensor, int]:
    """(w1_a w1_b) ∘ (w2_a w2_b), each over a core where there is one."""
    _complete(held, {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}, where)
    if ("hada_t1" in held) != ("hada_t2" in held):
        _unfit(held, shape, where)
    first, second = (_pair(held[f"hada_w{n}_a"], held[f"hada_w{n}_b"], held.get(f"hada_t{n}"), held, shape, where) for n in (1, 2))
    return _shaped(first, held, shape, where) * _shaped(second, held, shape, where), held["hada_w1_b"].shape[0]


def _lokr(held: Held, shape: torch.Size, where: str) -> tuple[Tensor, int | None]:
    """w1 ⊗ w2, each whole or a product; α counts only where one is a product."""
    factors, rank = [], None
    for n in (1, 2):
        whole, a, b = (held.get(f"lokr_w{n}{end}") for end in ("", "_a", "_b"))
        core = held.get("lokr_t2") if n == 2 else None
        if whole is not None and a is None and b is None and core is None:
            factors.append(whole)
        elif whole is None and a is not None and b is not None:
            factors.append(_pair(a, b, core, held, shape, where))
            rank = _same(rank, b.shape[0], held, shape, where)
        else:
            _complete(held, {f"lokr_w{n}"}, where)
            _unfit(held, shape, where)
    w1, w2 = factors
    if w1.ndim < 2 or w2.ndim < 2 or w1.numel() != w1.shape[0] * w1.shape[1]:
        _unfit(held, shape, where)
    w1, kernel = w1.flatten(1), w2.shape[2:]
    if not _makes((w1.shape[0] * w2.shape[0], w1.shape[1] * w2.shape[1], *kernel), shape):
        _unfit(held, shape, where)
    return torch.kron(w1, w2.flatten(1)).reshape(shape), rank


def _same(rank: int | None, other: int, held: Held, shape: torch.Size, where: str) -> int:
    if rank not in (None, other):
        _unfit(held, shape, where)
    return other


def _pair(a: Tensor, b: Tensor, core: Tensor | None, held: Held, shape: torch.Size, where: str) -> Tensor:
    """a · b, or over a core (r, r, k, l) with a (r, out) and b (r, in): (out, in, k, l)."""
    if a.ndim != 2 or b.ndim != 2:
        _unfit(held, shape, where)
    if core is None:
        if a.shape[1] != b.shape[0] or a.shape[0] * b.shape[1] > shape.numel():
            _unfit(held, shape, where)
        return a @ b
    fits = core.ndim == 4 and core.shape[:2] == (a.shape[0], b.shape[0])
    if not fits or a.shape[1] * b.shape[1] * core.shape[2:].numel() > shape.numel():
        _unfit(held, shape, where)
    made: Tensor = torch.einsum("ijkl,ip,jr->prkl", core, a, b)
    return made


def _makes(found: Sequence[int], shape: torch.Size) -> bool:
    """Whether a product of shape ``found`` is a weight of ``shape``: alike but for ones at the end, or its rows laid out flat."""
    alike = _trimmed(found) == _trimmed(shape)
    return alike or (len(found) == 2 and found[0] == shape[0] and math.prod(found) == shape.numel())


def _trimmed(shape: Sequence[int]) -> tuple[int, ...]:
    sizes = list(shape)
    while sizes and sizes[-1] == 1:
        sizes.pop()
    return tuple(sizes)


def _shaped(found: Tensor, held: Held, shape: torch.Size, where: str) -> Tensor:
    if not _makes(found.shape, shape):
        _unfit(held, shape, where)
    return found.reshape(shape)


def _complete(held: Held, needed: set[str], where: str) -> None:
    missing = sorted(needed - set(held))
    if missing:
        raise BdauditError(f"{where} has {' and '.join(sorted(held))} alone; it needs {' and '.join(missing)} besides")


def _unfit(held: Held, shape: torch.Size, where: str) -> NoReturn:
    factors = ", ".join(f"{role} {tuple(tensor.shape)}" for role, tensor in sorted(held.items()))
    raise BdauditError(f"{where}: {factors} do not make a weight of shape {tuple(shape)}")
