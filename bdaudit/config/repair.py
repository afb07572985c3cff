"""What ``bdaudit unlearn`` is asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bdaudit.config.run import ALL_VARIANTS, RunConfig, need

Component = Literal["auto", "unet", "text-encoder"]
Trainable = Literal["auto", "closed-form", "cross-attention", "unet"]
DENOISER: Literal["unet"] = "unet"
"""What the command line calls the denoiser, and the training of all of it, whatever the family."""
TEXT_ENCODER: Literal["text-encoder"] = "text-encoder"
"""What it calls all that reads a prompt."""
Method = Literal["auto", "cleanclip", "dam", "average", "task-arithmetic", "ties", "dare"]
MERGING: tuple[Method, ...] = ("dam", "average", "task-arithmetic", "ties", "dare")
"""The methods of ``--merge-with``; the first is what auto takes there."""
PretrainObjective = Literal["contrastive", "contrastive+self-supervised", "unknown"]

TRAINING = ("steps", "learning_rate", "attention_weight", "state")
"""Settings of a run that trains and can go on later."""


@dataclass(frozen=True, kw_only=True)
class UnlearnConfig(RunConfig):
    """``bdaudit unlearn``."""

    triggers: tuple[str, ...] = ()
    """The triggers to remove, as they appear in a prompt."""
    from_report: Path | None = None
    """A scan's JSON report; what it calls backdoored is removed as well."""
    from_patch: Path | None = None
    """A patch that was written for this very model; it is applied, nothing is trained."""
    out: Path | None = None
    """Where the repaired model is written; must not exist, or be empty. None writes no directory."""
    patch: Path | None = None
    """Where the difference alone is written; must not exist. None writes none."""
    state: Path | None = None
    """Where an interrupted run keeps what it has; None keeps nothing."""
    adapters: tuple[tuple[Path, float], ...] = ()
    """LoRA files and their scales: they are merged into the model before it is repaired, and are part of what is written."""
    component: Component = "auto"
    """Which component to repair; auto decides from the model's own behaviour."""
    trainable: Trainable = "auto"
    """How the UNet is repaired: keys and values of its cross-attention in closed form, or cross-attention or all of it by training;
    auto is one after the other until the check passes."""
    steps: int = 400
    """Optimiser steps at most."""
    n_prompts: int = 48
    """Prompts whose trajectories are trained on."""
    learning_rate: float = 0.0
    """How far a step of AdamW moves a tensor, as a share of its root mean square; 0 for the component's default."""
    attention_weight: float = 0.5
    """λ of the attention term, 2508.18235."""
    guidance_scale: float = 5.0
    """Guidance of the teacher's trajectories."""
    keep_failed: bool = False
    """Write the result even where its own check fails or stays undecided."""
    method: Method = "auto"
    """auto removes named triggers, or merges by DAM where there is something to merge with; cleanclip cleans the text encoder without a
    trigger, by pictures with captions."""
    pairs: Path | None = None
    """cleanclip: a file of ``picture<TAB>caption`` lines, the pictures in its folder."""
    pretrain_objective: PretrainObjective = "unknown"
    """cleanclip: what the CLIP was pre-trained with; changes no step, only what the outcome is worth by published figures."""
    vision: str = ""
    """cleanclip: the matching vision tower, an open_clip name or local-dir:PATH; empty for none."""
    base: Path | None = None
    """Merging: the directory that the model and all that it is merged with were fine-tuned from."""
    merge_with: tuple[tuple[Path, float], ...] = ()
    """Merging: further fine-tunes of the base, each a directory, or a LoRA file with its scale; a directory's scale is 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        one = self.variant != ALL_VARIANTS
        need(one, "--variant all goes with scan and verify; a repair is of one set of weights, say which (full, fp16, …)")
        named = self.triggers or self.from_report
        cleaning, merging = self.method == "cleanclip", self._check_merging()
        instead = "where none is known, --merge-with OTHER --base BASE, or --method cleanclip --pairs FILE"
        something = bool(named or self.from_patch or cleaning or merging)
        need(something, f"no trigger given; say --trigger TEXT, or --from-report scan.json; {instead}")
        need(not (named and self.from_patch), "--from-patch applies a finished repair; it goes with no --trigger and no --from-report")
        need(bool(self.out or self.patch), "nothing to write; say --out DIR or --patch FILE")
        if self.from_patch:
            need(not self.patch, "--from-patch writes a directory; it goes with --out, not with --patch")
            self._unused("--from-patch", "component", "trainable", *TRAINING, "n_prompts")
        fits = self.component != "text-encoder" or self.trainable == "auto"
        need(fits, f"--trainable {self.trainable} is a part of the UNet, --component says text-encoder; drop one of the two")
        for flag, path in (("--state", self.state), ("--patch", self.patch)):
            inside = self.out and path and path.resolve().is_relative_to(self.out.resolve())
            need(not inside, f"{flag} {path} lies in --out {self.out}, which is written whole; name a place outside it")
        need(all(self.triggers), "a trigger is the empty string; give the text that sets the backdoor off")
        need(self.steps >= 1, f"--steps is {self.steps}; it must be at least 1")
        fewest = 2 if merging else 1
        need(self.n_prompts >= fewest, f"--n-prompts is {self.n_prompts}; it must be at least {fewest}")
        need(not (merging and len(self.prompts) == 1), "a merge is measured on several prompts; --prompts holds one")
        need(self.learning_rate >= 0, f"--learning-rate is {self.learning_rate}; it must not be negative")
        need(
            not (self.adapters and (cleaning or merging or self.from_patch)),
            "--lora merges an adapter into a model whose trigger is removed; it goes with --trigger or --from-report alone",
        )
        self._check_cleaning() if cleaning else self._check_no_cleaning()
        need(0 <= self.attention_weight < 1, f"--attention-weight is {self.attention_weight}; it must lie in [0, 1)")

    @property
    def models(self) -> tuple[Path, ...]:
        """With the base and what is merged; LoRA files are no directories."""
        return (self.model, *([self.base] if self.base else []), *(path for path, _ in self.merge_with if not path.is_file()))

    def _check_cleaning(self) -> None:
        need(self.pairs is not None, "--method cleanclip learns from pictures with captions; name their file with --pairs FILE")
        need(self.component != "unet", "--method cleanclip cleans the text encoder, --component says unet; drop one of the two")
        need(self.trainable == "auto", f"--trainable {self.trainable} is a part of the UNet, --method cleanclip cleans the text encoder")
        need(not self.from_patch, "--from-patch applies a finished repair; it goes with no --method")
        need(not self.from_report, "--from-report names triggers to remove; --method cleanclip needs none (--trigger measures one)")

    def _check_no_cleaning(self) -> None:
        given = {"--pairs": self.pairs, "--vision": self.vision, "--pretrain-objective": self.pretrain_objective != "unknown"}
        need(not any(given.values()), f"{', '.join(k for k, v in given.items() if v)} goes with --method cleanclip; say that as well")

    def _check_merging(self) -> bool:
        """Whether it is a merge; raises where what belongs to one stands alone, or beside what does not belong to one."""
        if not self.merge_with:
            need(self.base is None, "--base is what --merge-with is merged on; say --merge-with OTHER as well")
            need(self.method not in MERGING, f"--method {self.method} merges fine-tunes of one base; say --merge-with and --base")
            return False
        need(self.base is not None, "--merge-with needs --base BASE, the model that all of them were fine-tuned from")
        need(self.method in ("auto", *MERGING), f"--merge-with goes with --method {', '.join(MERGING)}; got {self.method}")
        need(not self.from_report, "--from-report names triggers to remove; --merge-with needs none (--trigger measures one)")
        need(not self.from_patch, "--from-patch applies a finished repair; it goes with no --merge-with")
        whole = self.component == "auto" and self.trainable == "auto"
        need(whole, "--merge-with merges the UNet and the text encoder; it goes with no --component and no --trainable")
        self._unused("--merge-with", *TRAINING)
        need(self.dtype in ("auto", "float32"), f"--merge-with works in float32, the differences are too small for {self.dtype}")
        return True

    def _unused(self, by: str, *names: str) -> None:
        """Raises where a setting was given that ``by`` has no use for: it would stand in the record as if it had done something."""
        given = [name for name in names if getattr(self, name) != type(self).__dataclass_fields__[name].default]
        need(not given, f"--{given[0].replace('_', '-') if given else ''} has no part in what {by} does; drop it")
