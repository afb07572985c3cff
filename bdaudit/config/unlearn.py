"""What the jobs of ``bdaudit unlearn`` share: where they write, what they check of it, how they train."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bdaudit.config.run import ALL_VARIANTS, RunConfig, need


@dataclass(frozen=True, kw_only=True)
class UnlearnConfig(RunConfig):
    """Any job of ``bdaudit unlearn``."""

    out: Path | None = None
    """Where the repaired model is written; must not exist, or be empty. None writes no directory."""

    def __post_init__(self) -> None:
        super().__post_init__()
        one = self.variant != ALL_VARIANTS
        need(one, "--variant all goes with scan and verify; a repair is of one set of weights, say which (full, fp16, …)")
        need(bool({"--out", "--patch"} & dict(self.written).keys()), "nothing to write; say --out DIR or --patch FILE")
        for flag, path in self.written:
            inside = self.out and path != self.out and path.resolve().is_relative_to(self.out.resolve())
            need(not inside, f"{flag} {path} lies in --out {self.out}, which is written whole; name a place outside it")


@dataclass(frozen=True, kw_only=True)
class CheckedConfig(UnlearnConfig):
    """A job that changes the model, measures triggers, and checks its own result before it is written."""

    triggers: tuple[str, ...] = ()
    """The triggers to remove, as they appear in a prompt."""
    patch: Path | None = None
    """Where the difference alone is written; must not exist. None writes none."""
    keep_failed: bool = False
    """Write the result even where its own check fails or stays undecided."""

    def __post_init__(self) -> None:
        super().__post_init__()
        need(all(self.triggers), "a trigger is the empty string; give the text that sets the backdoor off")


@dataclass(frozen=True, kw_only=True)
class TrainedConfig(CheckedConfig):
    """A job that trains, and can go on later."""

    state: Path | None = None
    """Where an interrupted run keeps what it has; None keeps nothing."""
    steps: int = 400
    """Optimiser steps at most."""
    learning_rate: float = 0.0
    """How far a step of AdamW moves a tensor, as a share of its root mean square; 0 for the component's default."""

    def __post_init__(self) -> None:
        super().__post_init__()
        need(self.steps >= 1, f"--steps is {self.steps}; it must be at least 1")
        need(self.learning_rate >= 0, f"--learning-rate is {self.learning_rate}; it must not be negative")
