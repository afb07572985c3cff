"""What the jobs of ``bdaudit unlearn`` share: where they write, what they check of it, how they train."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from bdaudit.config.flag import Flag
from bdaudit.config.run import ALL_VARIANTS, RunConfig, TriggeredConfig, need, need_apart

Method = Literal["auto", "skd-cag", "cleanclip", "dam", "average", "task-arithmetic", "ties", "dare"]
"""What ``--method`` takes; each job takes its own, and cleanclip asks for a job of its own."""
REMOVING: tuple[Method, ...] = ("auto", "skd-cag")
"""The methods that remove named triggers."""
MERGING: tuple[Method, ...] = ("dam", "average", "task-arithmetic", "ties", "dare")
"""The methods of ``--merge-with``; the first is what auto takes there."""


@dataclass(frozen=True, kw_only=True)
class UnlearnConfig(RunConfig):
    """Of every job."""

    out: Annotated[Path | None, Flag("new folder")] = None
    """Where the repaired model goes; must not exist, or be empty. Default: MODEL-unlearned, beside it; none with --patch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        one = self.variant != ALL_VARIANTS
        need(one, "--variant all goes with scan and verify; a repair is of one set of weights, say which (full, fp16, …)")
        need(bool({"--out", "--patch"} & dict(self.written).keys()), "nothing to write; say --out DIR or --patch FILE")
        need_apart(self.written)


@dataclass(frozen=True, kw_only=True)
class CheckedConfig(UnlearnConfig, TriggeredConfig):
    """Of every job but --from-patch."""

    patch: Annotated[Path | None, Flag("new file")] = None
    """Write the difference alone, as safetensors, to hand on: instead of the directory, or beside --out. Must not exist."""
    keep_failed: bool = False
    """Write the repaired model even if its check does not pass."""


@dataclass(frozen=True, kw_only=True)
class TrainedConfig(CheckedConfig):
    """Of a job that trains: removing a trigger, or cleaning."""

    state: Annotated[Path | None, Flag("new folder")] = None
    """Where an interrupted run keeps what it has: the same command goes on from there. Default: beside the result, .state."""
    steps: int = 400
    """Training steps at most."""
    learning_rate: float = 0.0
    """How far a step of AdamW moves a tensor, as a share of its root mean square. 0: 0.004 for the denoiser, 0.006 for the text encoder,
    and five rates to choose from for cleanclip."""

    def __post_init__(self) -> None:
        super().__post_init__()
        need(self.steps >= 1, f"--steps is {self.steps}; it must be at least 1")
        need(self.learning_rate >= 0, f"--learning-rate is {self.learning_rate}; it must not be negative")
