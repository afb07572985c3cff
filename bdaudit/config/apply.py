"""What it takes to apply a finished patch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from bdaudit.config.flag import Flag
from bdaudit.config.run import need
from bdaudit.config.unlearn import UnlearnConfig


@dataclass(frozen=True, kw_only=True)
class ApplyConfig(UnlearnConfig):
    """To apply a finished patch (--from-patch)."""

    from_patch: Annotated[Path | None, Flag("file")] = None
    """Apply what --patch wrote for this very model, and train nothing."""

    def __post_init__(self) -> None:
        super().__post_init__()
        need(self.from_patch is not None, "no patch given; say --from-patch FILE, what --patch wrote for this very model")
