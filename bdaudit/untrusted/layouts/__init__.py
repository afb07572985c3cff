"""The families that can be audited, one file each, and the kinds of parts that they are made of."""

from __future__ import annotations

import re

from bdaudit.untrusted.layouts import chroma, flux, flux2, pixart, qwen_image, sana, sd3, sdxl, stable_diffusion, z_image
from bdaudit.untrusted.layouts.layout import Layout, Part

_EACH = (stable_diffusion, sdxl, sd3, flux, pixart, chroma, z_image, flux2, sana, qwen_image)
LAYOUTS: dict[str, Layout] = {family.LAYOUT.name: family.LAYOUT for family in _EACH}
_KIN = {
    "Flux2Pipeline": "FLUX.2 dev, which Mistral reads for",
    "PixArtAlphaPipeline": "PixArt-α, which reads 120 tokens and is told a picture's size",
    "SanaSprintPipeline": "Sana-Sprint, which walks by steps of its own",
    "QwenImageEditPipeline": "Qwen-Image-Edit, which reads a picture beside the text",
}
"""Pipeline classes that people look for among the families → what they are."""


def layout_of(pipeline_class: object) -> Layout | None:
    """The one that covers a pipeline class of diffusers."""
    return next((layout for layout in LAYOUTS.values() if re.fullmatch(layout.pipelines, str(pipeline_class))), None)


def called(pipeline_class: str) -> str:
    """A class that no family covers, and what it is where that is known."""
    return f"{pipeline_class} ({_KIN[pipeline_class]})" if pipeline_class in _KIN else pipeline_class


def models() -> dict[str, Part]:
    """The parts that have weights, of whatever family: the first that has one of that name. Their files are called alike in all."""
    return {name: part for layout in reversed(LAYOUTS.values()) for name, part in layout.models.items()}


def expected() -> str:
    """The families, in words."""
    return " or ".join(layout.called for layout in LAYOUTS.values())
