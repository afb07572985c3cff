"""What it takes to clean a text encoder by pictures with captions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bdaudit.config.repair import Component
from bdaudit.config.run import need
from bdaudit.config.unlearn import TrainedConfig

PretrainObjective = Literal["contrastive", "contrastive+self-supervised", "unknown"]


@dataclass(frozen=True, kw_only=True)
class CleanConfig(TrainedConfig):
    """``bdaudit unlearn --method cleanclip``: it needs no trigger; those that are named are measured."""

    component: Component = "auto"
    """text-encoder or auto, which is the same: nothing else is cleaned."""
    pairs: Path | None = None
    """A file of ``picture<TAB>caption`` lines, the pictures in its folder."""
    pretrain_objective: PretrainObjective = "unknown"
    """What the CLIP was pre-trained with; changes no step, only what the outcome is worth by published figures."""
    vision: str = ""
    """The matching vision tower, an open_clip name or local-dir:PATH; empty for none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        need(self.pairs is not None, "--method cleanclip learns from pictures with captions; name their file with --pairs FILE")
        need(self.component != "unet", "--method cleanclip cleans the text encoder, --component says unet; drop one of the two")
