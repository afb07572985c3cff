"""Whether a model's weights fit where they are to run: told with its figures, before anything is loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import NoReturn

import torch

from bdaudit.errors import BdauditError


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
    parameters: Mapping[str, int], heeding: Sequence[str], dtype: torch.dtype, device: torch.device, room: int, machine: int
) -> tuple[str, ...]:
    """The parts that come to a GPU by turns, where they do not fit together: none, the readers, or the denoiser too.

    ``heeding`` are the denoiser and the readers, in this order; whatever else there is stays. Parts wait in ``machine`` bytes of memory.

    Raises:
        BdauditError: the largest does not fit beside what stays, or they do not fit into the machine's memory; by part.
    """
    each = {part: numbers * dtype.itemsize for part, numbers in parameters.items()}
    whole = sum(each.values())
    if not room or whole <= room:
        return ()
    for some in (tuple(heeding[1:]), tuple(heeding)) if device.type == "cuda" else ():
        sizes = [each[part] for part in some]
        if sizes and whole - sum(sizes) + max(sizes) <= room and (not machine or sum(sizes) <= machine):
            return some
    _refuse(each, dtype, device, room, _by_turns([each[part] for part in heeding], whole, machine) if device.type == "cuda" else "")


def _by_turns(sizes: Sequence[int], whole: int, machine: int) -> str:
    """What the device and the machine would have to hold."""
    there = f"; by turns they would need {(whole - sum(sizes) + max(sizes)) / 1e9:.1f} GB there at once"
    if not machine or sum(sizes) <= machine:
        return there
    return f"{there}, and {sum(sizes) / 1e9:.1f} GB of the machine's memory, of which {machine / 1e9:.1f} GB are free"


def _refuse(each: Mapping[str, int], dtype: torch.dtype, device: torch.device, room: int, further: str) -> NoReturn:
    kind = str(dtype).removeprefix("torch.")
    parts = ", ".join(f"{part} {bytes_ / 1e9:.1f}" for part, bytes_ in sorted(each.items(), key=lambda item: -item[1]))
    said = f"the weights take {sum(each.values()) / 1e9:.1f} GB in {kind} ({parts}), and {device} has {room / 1e9:.1f} GB free{further}"
    other = "--dtype bfloat16 or a larger machine" if dtype.itemsize > 2 else "a larger device, or --device cpu"
    raise BdauditError(f"{said}; nothing was loaded; take {other}")
