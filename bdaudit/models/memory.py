"""Whether a model's weights fit where they are to run: told with its figures, before anything is loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import torch

from bdaudit.errors import BdauditError

_LAYER = 2
"""Times a part's largest tensor that a layer of it may take, with what lies beside that tensor."""


@dataclass(frozen=True)
class Away:
    """What lies in the machine's memory while it is not run, and of that, what never comes to the device as a whole."""

    parts: tuple[str, ...] = ()
    layered: tuple[str, ...] = ()


def room_of(device: torch.device) -> int:
    """Bytes that are free on a GPU, or that this machine has; 0 where that cannot be told."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    known = "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {})
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if known else 0


def check_fits(parameters: Mapping[str, int], dtype: torch.dtype, device: torch.device, room: int) -> None:
    """Compare what the parts, of so many numbers each, take in ``dtype`` with the ``room`` on ``device``.

    Raises:
        BdauditError: they do not fit, by part.
    """
    each = {part: numbers * dtype.itemsize for part, numbers in parameters.items()}
    if room and sum(each.values()) > room:
        _refuse(each, dtype, device, room, "")


def waiting(
    parameters: Mapping[str, int],
    heeding: Sequence[str],
    dtype: torch.dtype,
    device: torch.device,
    room: int,
    machine: int,
    largest: Mapping[str, int] | None = None,
) -> Away:
    """The parts that come to a GPU by turns, where they do not fit together: none, the readers, or the denoiser too; and those that come
    layer by layer, where they do not fit by themselves.

    ``heeding`` are the denoiser and the readers, in this order; whatever else there is stays. Parts wait in ``machine`` bytes of memory.
    ``largest`` is how many numbers the largest tensor of each part holds; a layer has a few beside it.

    Raises:
        BdauditError: a layer does not fit beside what stays, or all of them do not fit into the machine's memory; by part.
    """
    each = {part: numbers * dtype.itemsize for part, numbers in parameters.items()}
    whole = sum(each.values())
    if not room or whole <= room:
        return Away()
    for some in (tuple(heeding[1:]), tuple(heeding)) if device.type == "cuda" else ():
        sizes = [each[part] for part in some]
        if sizes and whole - sum(sizes) + max(sizes) <= room and (not machine or sum(sizes) <= machine):
            return Away(some)
    if device.type != "cuda":
        _refuse(each, dtype, device, room, "")
    stays, all_of_them = whole - sum(each[part] for part in heeding), sum(each[part] for part in heeding)
    layered = tuple(part for part in heeding if largest and stays + each[part] > room)
    layer = {part: _LAYER * (largest or {})[part] * dtype.itemsize for part in layered}
    there = stays + max(layer.get(part, each[part]) for part in heeding)
    if layered and there <= room and (not machine or all_of_them <= machine):
        return Away(tuple(heeding), layered)
    _refuse(each, dtype, device, room, _at_once("layer by layer" if layered else "by turns", there, all_of_them, machine))


def _at_once(how: str, there: int, here: int, machine: int) -> str:
    """What the device and the machine would have to hold."""
    said = f"; {how} they would need {there / 1e9:.1f} GB there at once"
    if not machine or here <= machine:
        return said
    return f"{said}, and {here / 1e9:.1f} GB of the machine's memory, of which {machine / 1e9:.1f} GB are free"


def _refuse(each: Mapping[str, int], dtype: torch.dtype, device: torch.device, room: int, further: str) -> NoReturn:
    kind = str(dtype).removeprefix("torch.")
    parts = ", ".join(f"{part} {bytes_ / 1e9:.1f}" for part, bytes_ in sorted(each.items(), key=lambda item: -item[1]))
    said = f"the weights take {sum(each.values()) / 1e9:.1f} GB in {kind} ({parts}), and {device} has {room / 1e9:.1f} GB free{further}"
    other = "--dtype bfloat16 or a larger machine" if dtype.itemsize > 2 else "a larger device, or --device cpu"
    raise BdauditError(f"{said}; nothing was loaded; take {other}")
