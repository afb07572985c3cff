"""The families that can be audited, one file each, and the kinds of parts that they are made of."""

from __future__ import annotations

import re

from bdaudit.untrusted.layouts import sdxl, stable_diffusion
from bdaudit.untrusted.layouts.layout import Layout, Part

LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in (stable_diffusion.LAYOUT, sdxl.LAYOUT)}


def layout_of(pipeline_class: object) -> Layout | None:
    """The one that covers a pipeline class of diffusers."""
    return next((layout for layout in LAYOUTS.values() if re.fullmatch(layout.pipelines, str(pipeline_class))), None)


def models() -> dict[str, Part]:
    """The parts that have weights, of whatever family; parts of one name are called alike in all."""
    return {name: part for layout in LAYOUTS.values() for name, part in layout.models.items()}


def expected() -> str:
    """The families, in words."""
    return " or ".join(layout.called for layout in LAYOUTS.values())
