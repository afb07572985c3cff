"""What it takes to remove named triggers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bdaudit.config.run import need
from bdaudit.config.unlearn import TrainedConfig

Component = Literal["auto", "unet", "text-encoder"]
Trainable = Literal["auto", "closed-form", "cross-attention", "unet"]
DENOISER: Literal["unet"] = "unet"
"""What the command line calls the denoiser, and the training of all of it, whatever the family."""
TEXT_ENCODER: Literal["text-encoder"] = "text-encoder"
"""What it calls all that reads a prompt."""


@dataclass(frozen=True, kw_only=True)
class RepairConfig(TrainedConfig):
    """``bdaudit unlearn --trigger`` or ``--from-report``."""

    from_report: Path | None = None
    """A scan's JSON report; what it calls backdoored is removed as well."""
    adapters: tuple[tuple[Path, float], ...] = ()
    """LoRA files and their scales: they are merged into the model before it is repaired, and are part of what is written."""
    component: Component = "auto"
    """Which component to repair; auto decides from the model's own behaviour."""
    trainable: Trainable = "auto"
    """How the UNet is repaired: keys and values of its cross-attention in closed form, or cross-attention or all of it by training;
    auto is one after the other until the check passes."""
    n_prompts: int = 48
    """Prompts whose trajectories are trained on."""
    attention_weight: float = 0.5
    """λ of the attention term, 2508.18235."""

    def __post_init__(self) -> None:
        super().__post_init__()
        instead = "where none is known, --merge-with OTHER --base BASE, or --method cleanclip --pairs FILE"
        named = bool(self.triggers or self.from_report)
        need(named, f"no trigger given; say --trigger TEXT, or --from-report scan.json; {instead}")
        fits = self.component != "text-encoder" or self.trainable == "auto"
        need(fits, f"--trainable {self.trainable} is a part of the UNet, --component says text-encoder; drop one of the two")
        need(self.n_prompts >= 1, f"--n-prompts is {self.n_prompts}; it must be at least 1")
        need(0 <= self.attention_weight < 1, f"--attention-weight is {self.attention_weight}; it must lie in [0, 1)")
