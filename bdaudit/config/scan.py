"""What ``bdaudit scan`` is asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bdaudit.config.run import RunConfig, need

Sweep = Literal["vocabulary", "unicode", "pairs", "recovery"]
Expose = Literal["off", "null-target", "random-captions", "pruning", "weight-noise"]


@dataclass(frozen=True, kw_only=True)
class ScanConfig(RunConfig):
    """``bdaudit scan``."""

    candidates: tuple[str, ...] = ()
    """Texts to probe; empty for the built-in list."""
    prompts_file: Path | None = None
    """The file that ``prompts`` come from, for the command that follows."""
    alpha: float = 0.01
    """The chance that a scan of a clean model calls anything backdoored (family-wise)."""
    fail_on: Literal["suspicious", "backdoored", "never"] = "backdoored"
    """The verdict from which the exit code is 1."""
    n_prompts: int = 8
    """Prompts that each candidate is inserted into."""
    timesteps: tuple[float, ...] = (1.0, 0.6, 0.3)
    """Where on the trajectory to probe, as shares of the training timesteps, falling; the override is read at the first, so let it be 1."""
    sweeps: tuple[Sweep, ...] = ()
    """Where to look for triggers that nobody listed."""
    pair_words: int = 1000
    """Of how many parts a sweep makes two-part texts: the tokenizer's commonest words, and its rarest beginnings and ends of words."""
    suspected: tuple[str, ...] = ()
    """Prompts that may hold a trigger."""
    adapters: tuple[tuple[Path, float], ...] = ()
    """LoRA files and their scales, applied to the model in this order."""
    reference: Path | None = None
    """A model to exchange parts with, to say where a finding lives."""
    expose: Expose = "off"
    """How a copy in memory unlearns what captions say; what is left of a text in it is a further signal."""
    state: Path | None = None
    """Where an interrupted run keeps what it has; None keeps nothing."""

    def __post_init__(self) -> None:
        super().__post_init__()
        need(0 < self.alpha < 0.5, f"--alpha is {self.alpha}; it must lie between 0 and 0.5")
        need(self.n_prompts >= 2, f"--n-prompts is {self.n_prompts}; it must be at least 2")
        need(self.pair_words >= 2, f"--pair-words is {self.pair_words}; it must be at least 2")
        need(all(prompt.strip() for prompt in self.suspected), "--prompt is empty; give the prompt that may hold a trigger")
        need(all(0 < t <= 1 for t in self.timesteps) and bool(self.timesteps), "timesteps are shares above 0, up to 1")
        need(list(self.timesteps) == sorted(set(self.timesteps), reverse=True), "timesteps must fall: the noisiest first, none twice")
        need(len(self.prompts) != 1, "--prompts holds one prompt; a scan compares what a text does to several, give at least 2")

    @property
    def models(self) -> tuple[Path, ...]:
        """With the reference."""
        return (self.model, *([self.reference] if self.reference else []))
