"""What it takes to clean a text encoder by pictures with captions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from bdaudit.config.flag import Flag
from bdaudit.config.repair import TEXT_ENCODER, Component
from bdaudit.config.run import need
from bdaudit.config.unlearn import TrainedConfig

PretrainObjective = Literal["contrastive", "contrastive+self-supervised", "unknown"]


@dataclass(frozen=True, kw_only=True)
class CleanConfig(TrainedConfig):
    """To clean the text encoder by pictures with captions (--method cleanclip)."""

    component: Component = "auto"
    """text-encoder or auto, which are the same: nothing else is cleaned."""
    pairs: Annotated[Path | None, Flag("file")] = None
    """UTF-8 lines of a picture's path, a tab, its caption; the pictures in the file's folder."""
    vision: Annotated[str, Flag(metavar="NAME")] = ""
    """The CLIP that the text encoder was taken from, as for verify --clip. Without: partial."""
    pretrain_objective: PretrainObjective = "unknown"
    """What that CLIP was pre-trained with. Published attack success after cleaning: 0.5 to 4 % where contrastive alone, 68 to 98 % with a
    self-supervised term as well. Changes the report's words, not the cleaning."""

    def __post_init__(self) -> None:
        super().__post_init__()
        need(self.pairs is not None, "--method cleanclip learns from pictures with captions; name their file with --pairs FILE")
        fits = self.component in ("auto", TEXT_ENCODER)
        need(fits, f"--method cleanclip cleans the text encoder, --component says {self.component}; drop one of the two")
