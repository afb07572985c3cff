"""What a pass costs on this machine, before any weights are loaded: one batch through the denoiser's shapes, filled with random numbers."""

from __future__ import annotations

import os
import time
from typing import Any

import torch

from bdaudit.errors import first_line
from bdaudit.models.device import choose_device, choose_dtype
from bdaudit.models.families import TIMED
from bdaudit.records import NotMeasured
from bdaudit.untrusted.inspect import Inspection

BATCH = 8
"""Latents of the batch that is timed, at most."""
ROOM = 3
"""How many times the weights' size must be free: they themselves, and what a batch takes."""


def seconds_a_pass(inspection: Inspection, device: str, dtype: str, batch_size: int) -> float | NotMeasured:
    """Of one latent, in a batch of up to ``BATCH``; or why it is not known."""
    try:
        return _timed(inspection, device, dtype, batch_size)
    except Exception as error:  # settings of which no model can be made, a device that is missing: the run itself will tell
        return NotMeasured(reason=first_line(error))


@torch.no_grad()
def _timed(inspection: Inspection, device: str, dtype: str, batch_size: int) -> float | NotMeasured:
    where = choose_device(device)
    kind = choose_dtype(dtype, where)
    if inspection.layout.name not in TIMED:
        return NotMeasured(reason=f"no batch of a {inspection.pipeline_class} can be made of shapes alone")
    part, made = TIMED[inspection.layout.name]
    needed, free = ROOM * inspection.parameters[part] * kind.itemsize, _free(where)
    if needed > free:
        return NotMeasured(reason=f"a timed batch needs about {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} are free")
    config: Any = inspection.settings[f"{part}/{inspection.layout.parts[part].config}"]
    n = min(batch_size, BATCH)
    module, told = made(config, inspection.latents, n, where, kind)
    module(**told)  # the first one takes what no other does
    _wait(where)
    began = time.perf_counter()
    module(**told)
    _wait(where)
    return (time.perf_counter() - began) / n


def _free(device: torch.device) -> int:
    """Bytes of memory that nothing holds."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
