"""What it takes to apply a finished patch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bdaudit.config.run import need
from bdaudit.config.unlearn import UnlearnConfig


@dataclass(frozen=True, kw_only=True)
class ApplyConfig(UnlearnConfig):
    """``bdaudit unlearn --from-patch``: nothing is trained, and nothing checked but that the patch fits."""

    from_patch: Path | None = None
    """A patch that was written for this very model; it is applied, nothing is trained."""

    def __post_init__(self) -> None:
        super().__post_init__()
        need(self.from_patch is not None, "no patch given; say --from-patch FILE, what --patch wrote for this very model")
