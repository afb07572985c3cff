"""What every command's config shares, and how a config refuses a setting."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bdaudit.errors import UsageError

Device = str
Dtype = Literal["auto", "float32", "float16", "bfloat16"]
Verdict = Literal["clean", "suspicious", "backdoored"]

ALL_VARIANTS = "all"
"""The value of ``--variant`` that audits each set of weights in turn."""


def need(ok: bool, message: str) -> None:
    """Raises the usage error ``message`` unless ``ok``."""
    if not ok:
        raise UsageError(message)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What the three verbs share."""

    model: Path
    """The diffusers directory, read and never written."""
    device: Device = "auto"
    """auto, cpu, cuda or cuda:N; a named device that is missing is an error."""
    dtype: Dtype = "auto"
    """auto is float32 on the CPU and bfloat16 on a GPU."""
    batch_size: int = 64
    """Latents a forward pass; halved when a GPU's memory runs out."""
    seed: int = 0
    """Every random draw follows from it."""
    variant: str = ""
    """Which of several sets of weights is audited: full, a name as fp16, all; empty takes what comes first, and the others make no pass."""
    strict: bool = False
    """Refuse a directory that holds a pickle that nothing would open."""
    allow_pickle: bool = False
    """Load a model that has no safetensors from one ``.bin``, if it holds tensors and nothing else."""
    prompts: tuple[str, ...] = ()
    """Prompts that suit the model; empty for the built-in ones."""
    guidance_scale: float = 5.0
    """Classifier-free guidance scale; a guided step is two forward passes."""
    size: tuple[int, int] | None = None
    """Width and height of pictures in pixels, of every model of the run; None for what each one's pipeline draws at."""

    def __post_init__(self) -> None:
        need(self.batch_size >= 1, f"--batch-size is {self.batch_size}; it must be at least 1")
        need(self.seed >= 0, f"--seed is {self.seed}; it must not be negative")
        fits = self.size is None or all(side > 0 and side % 8 == 0 for side in self.size)
        need(fits, f"--size is {'x'.join(map(str, self.size or ()))}; diffusers draws multiples of 8 pixels a side")
        plain = re.fullmatch(r"[\w.-]*", self.variant) is not None
        need(plain, f"--variant is {self.variant!a}; expected full, all, or the part of a file's name before .safetensors, as fp16")

    @property
    def models(self) -> tuple[Path, ...]:
        """Every model directory that the run opens, the suspect first: all are inspected alike, and none is ever written."""
        return (self.model,)

    @property
    def written(self) -> tuple[tuple[str, Path], ...]:
        """Flag and path of whatever the run writes beside its reports, folders first."""
        named = (("--out", "out"), ("--save-images", "save_images"), ("--state", "state"), ("--patch", "patch"))
        return tuple((flag, path) for flag, name in named if (path := getattr(self, name, None)))
