"""What it takes to merge a model with further fine-tunes of its base."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from bdaudit.config.flag import Flag
from bdaudit.config.run import need
from bdaudit.config.unlearn import MERGING, CheckedConfig, Method


@dataclass(frozen=True, kw_only=True)
class MergeConfig(CheckedConfig):
    """To merge with fine-tunes of the same base (--merge-with)."""

    base: Annotated[Path | None, Flag("model", "BASE")] = None
    """The model that MODEL and every --merge-with were fine-tuned from."""
    merge_with: Annotated[tuple[tuple[Path, float], ...], Flag("contributor")] = ()
    """Merge MODEL with this fine-tune of BASE: a directory, a checkpoint in one file, or a LoRA as FILE[:scale]. Needs no trigger."""
    method: Method = "auto"
    """auto is dam; the others are plain merges to compare with."""
    n_prompts: int = 48
    """Prompts that dam's masks are trained on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        need(bool(self.merge_with), "nothing to merge with; say --merge-with OTHER, a fine-tune of --base")
        need(self.base is not None, "--merge-with needs --base BASE, the model that all of them were fine-tuned from")
        need(self.method in ("auto", *MERGING), f"--merge-with goes with --method {', '.join(MERGING)}; got {self.method}")
        need(self.dtype in ("auto", "float32"), f"--merge-with works in float32, the differences are too small for {self.dtype}")
        need(self.n_prompts >= 2, f"--n-prompts is {self.n_prompts}; it must be at least 2")
        need(len(self.prompts) != 1, "a merge is measured on several prompts; --prompts holds one")

    @property
    def models(self) -> tuple[Path, ...]:
        """With the base and what is merged; LoRA files are no directories."""
        return (self.model, *([self.base] if self.base else []), *(path for path, _ in self.merge_with if not path.is_file()))
