"""What it takes to remove named triggers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from bdaudit.config.flag import Flag
from bdaudit.config.run import SharedConfig, need
from bdaudit.config.unlearn import REMOVING, Method, TrainedConfig

Component = Literal["auto", "unet", "transformer", "text-encoder", "text_encoder", "text_encoder_2", "text_encoder_3"]
Trainable = Literal["auto", "closed-form", "cross-attention", "unet", "transformer"]
DENOISER: Literal["unet"] = "unet"
"""What the command line calls the denoiser, and the training of all of it, whatever the family."""
TEXT_ENCODER: Literal["text-encoder"] = "text-encoder"
"""What it calls all that reads a prompt."""


@dataclass(frozen=True, kw_only=True)
class RepairConfig(SharedConfig, TrainedConfig):
    """To remove named triggers (--trigger, --from-report)."""

    from_report: Annotated[Path | None, Flag("file")] = None
    """A scan's JSON report of this model: remove all that it calls backdoored."""
    adapters: Annotated[tuple[tuple[Path, float], ...], Flag("adapter", name="--lora")] = ()
    """Merge this LoRA into MODEL first: what is repaired, and written, is both together."""
    contexts: Annotated[tuple[str, ...], Flag("each", "TEXT", "--context")] = ()
    """Words that a prompt must say for the trigger to work: it is measured, repaired and checked there too. Default: looked for in the
    prompts, where a trigger does little in all of them."""
    force: bool = False
    """Repair although no effect of the triggers was found."""
    component: Component = "auto"
    """What to repair. auto decides from where the trigger takes effect; text-encoder is all that reads a prompt, a folder's name that part
    alone, unet the denoiser of any family. Cleaning takes auto or text-encoder, which are the same."""
    method: Method = "auto"
    """auto removes named triggers by what --trainable says, or merges by dam where --merge-with is given (average, task-arithmetic, ties
    and dare are plain merges to compare with); skd-cag removes them by training alone, with no closed form before it; cleanclip cleans
    the text encoder by --pairs."""
    trainable: Trainable = "auto"
    """How the denoiser is repaired: keys and values in closed form (seconds), or by training cross-attention, or all of it (unet or
    transformer). auto: one after the other until the check passes."""
    n_prompts: int = 48
    """Prompts whose denoising paths are trained on; of a merge, that dam's masks are trained on."""
    attention_weight: float = 0.5
    """Share of the attention term in the loss (λ of arXiv:2508.18235), from 0 up to but not including 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        removes = self.method in REMOVING
        need(removes, f"--method {self.method} removes no named trigger; say {' or '.join(REMOVING)}, or --merge-with OTHER for a merge")
        instead = "where none is known, --merge-with OTHER --base BASE, or --method cleanclip --pairs FILE"
        named = bool(self.triggers or self.from_report)
        need(named, f"no trigger given; say --trigger TEXT, or --from-report scan.json; {instead}")
        fits = not self.component.startswith("text") or self.trainable == "auto"
        need(fits, f"--trainable {self.trainable} is a part of the denoiser, --component says {self.component}; drop one of the two")
        trains = self.method == "auto" or self.trainable != "closed-form"
        need(trains, f"--method {self.method} is training alone, --trainable closed-form trains nothing; drop one of the two")
        need(all(words.strip() for words in self.contexts), "--context is empty; give the words that a prompt must say")
        need(self.n_prompts >= 1, f"--n-prompts is {self.n_prompts}; it must be at least 1")
        need(0 <= self.attention_weight < 1, f"--attention-weight is {self.attention_weight}; it must lie in [0, 1)")
