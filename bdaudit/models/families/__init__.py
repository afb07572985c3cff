"""One file a family: from loaded parts to what a ``Suspect`` is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from bdaudit.models.decoder import Decoder
from bdaudit.models.denoiser import Denoiser
from bdaudit.models.families import sdxl, stable_diffusion
from bdaudit.models.schedule import Schedule
from bdaudit.models.text import TextSide

Seams = tuple[TextSide, Denoiser, Decoder, Schedule]

FAMILIES: dict[str, Callable[[Mapping[str, Any], tuple[int, int], torch.device], Seams]] = {
    "stable-diffusion": stable_diffusion.open_parts,
    "sdxl": sdxl.open_parts,
}
"""Layout → what opens its parts, the pipeline's own settings among them under ``PIPELINE``, at a height and width of its latents."""
