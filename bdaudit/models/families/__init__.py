"""One file a family: from loaded parts to what a ``Suspect`` is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from bdaudit.models.decoder import Decoder
from bdaudit.models.denoiser import Denoiser
from bdaudit.models.families import chroma, flux, flux2, pixart, qwen_image, random_unet, sana, sd3, sdxl, stable_diffusion, z_image
from bdaudit.models.schedule import Schedule
from bdaudit.models.text import TextSide

Seams = tuple[TextSide, Denoiser, Decoder, Schedule]

FAMILIES: dict[str, Callable[[Mapping[str, Any], tuple[int, int], torch.device], Seams]] = {
    "stable-diffusion": stable_diffusion.open_parts,
    "sdxl": sdxl.open_parts,
    "sd3": sd3.open_parts,
    "flux": flux.open_parts,
    "pixart": pixart.open_parts,
    "chroma": chroma.open_parts,
    "z-image": z_image.open_parts,
    "flux2": flux2.open_parts,
    "sana": sana.open_parts,
    "qwen-image": qwen_image.open_parts,
}
"""Layout → what opens its parts at a height and width of its latents. With the parts go the pipeline's own settings, under ``PIPELINE``,
and whether the run asked for a guidance scale, under ``GUIDED``."""

TIMED: dict[str, tuple[str, Callable[..., tuple[Any, dict[str, Any]]]]] = {
    "stable-diffusion": ("unet", random_unet.made),
    "sdxl": ("unet", random_unet.made),
}
"""Layout → its denoiser's part, and what makes one of random numbers and the arguments of a pass; of those that can be timed so."""
