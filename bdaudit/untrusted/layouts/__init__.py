"""The families that can be audited, one file each, and the kinds of parts that they are made of."""

from __future__ import annotations

import re

from bdaudit.untrusted.layouts import chroma, flux, flux2, pixart, qwen_image, sana, sd3, sdxl, stable_diffusion, z_image
from bdaudit.untrusted.layouts.layout import Layout, Part

_EACH = (stable_diffusion, sdxl, sd3, flux, pixart, chroma, z_image, flux2, sana, qwen_image)
LAYOUTS: dict[str, Layout] = {family.LAYOUT.name: family.LAYOUT for family in _EACH}


def layout_of(pipeline_class: object) -> Layout | None:
    """The one that covers a pipeline class of diffusers."""
    return next((layout for layout in LAYOUTS.values() if re.fullmatch(layout.pipelines, str(pipeline_class))), None)


def models() -> dict[str, Part]:
    """The parts that have weights, of whatever family: the first that has one of that name. Their files are called alike in all."""
    return {name: part for layout in reversed(LAYOUTS.values()) for name, part in layout.models.items()}


def expected() -> str:
    """The families, in words."""
    return " or ".join(layout.called for layout in LAYOUTS.values())
