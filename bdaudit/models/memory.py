"""Whether a model's weights fit where they are to run: told with its figures, before anything is loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping

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
    if not room or sum(each.values()) <= room:
        return
    kind = str(dtype).removeprefix("torch.")
    parts = ", ".join(f"{part} {bytes_ / 1e9:.1f}" for part, bytes_ in sorted(each.items(), key=lambda item: -item[1]))
    said = f"the weights take {sum(each.values()) / 1e9:.1f} GB in {kind} ({parts}), and {device} has {room / 1e9:.1f} GB free"
    other = "--dtype bfloat16 or a larger machine" if dtype.itemsize > 2 else "a larger device, or --device cpu"
    raise BdauditError(f"{said}; nothing was loaded; take {other}")
