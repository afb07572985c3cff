"""One frozen config a command, checked where it is made. Nothing below ``cli`` sees a flag."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bdaudit.errors import UsageError

Device = str
Dtype = Literal["auto", "float32", "float16", "bfloat16"]
Verdict = Literal["clean", "suspicious", "backdoored"]
Component = Literal["auto", "unet", "text-encoder"]
Sweep = Literal["vocabulary", "unicode", "pairs", "recovery"]
Trainable = Literal["auto", "closed-form", "cross-attention", "unet"]
Method = Literal["auto", "cleanclip", "dam", "average", "task-arithmetic", "ties", "dare"]
MERGING: tuple[Method, ...] = ("dam", "average", "task-arithmetic", "ties", "dare")
"""The methods of ``--merge-with``; the first is what auto takes there."""
PretrainObjective = Literal["contrastive", "contrastive+self-supervised", "unknown"]
Expose = Literal["off", "null-target", "random-captions", "pruning", "weight-noise"]
Evidence = Literal["required", "none"]

ALL_VARIANTS = "all"
"""The value of ``--variant`` that audits each set of weights in turn."""

TRAINING = ("steps", "learning_rate", "attention_weight", "state")
"""Settings of a run that trains and can go on later."""


def _need(ok: bool, message: str) -> None:
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
    size: tuple[int, int] | None = None
    """Width and height of pictures in pixels, of every model of the run; None for what each one's pipeline draws at."""

    def __post_init__(self) -> None:
        _need(self.batch_size >= 1, f"--batch-size is {self.batch_size}; it must be at least 1")
        _need(self.seed >= 0, f"--seed is {self.seed}; it must not be negative")
        fits = self.size is None or all(side > 0 and side % 8 == 0 for side in self.size)
        _need(fits, f"--size is {'x'.join(map(str, self.size or ()))}; diffusers draws multiples of 8 pixels a side")
        plain = re.fullmatch(r"[\w.-]*", self.variant) is not None
        _need(plain, f"--variant is {self.variant!a}; expected full, all, or the part of a file's name before .safetensors, as fp16")

    @property
    def models(self) -> tuple[Path, ...]:
        """Every model directory that the run opens, the suspect first: all are inspected alike, and none is ever written."""
        return (self.model,)


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
    guidance_scale: float = 5.0
    """Guidance of the shared clean trajectories."""
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
        _need(0 < self.alpha < 0.5, f"--alpha is {self.alpha}; it must lie between 0 and 0.5")
        _need(self.n_prompts >= 2, f"--n-prompts is {self.n_prompts}; it must be at least 2")
        _need(self.pair_words >= 2, f"--pair-words is {self.pair_words}; it must be at least 2")
        _need(all(prompt.strip() for prompt in self.suspected), "--prompt is empty; give the prompt that may hold a trigger")
        _need(all(0 < t <= 1 for t in self.timesteps) and bool(self.timesteps), "timesteps are shares above 0, up to 1")
        _need(list(self.timesteps) == sorted(set(self.timesteps), reverse=True), "timesteps must fall: the noisiest first, none twice")
        _need(len(self.prompts) != 1, "--prompts holds one prompt; a scan compares what a text does to several, give at least 2")

    @property
    def models(self) -> tuple[Path, ...]:
        """With the reference."""
        return (self.model, *([self.reference] if self.reference else []))


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
        _need(one, "--variant all goes with scan and verify; a repair is of one set of weights, say which (full, fp16, …)")
        named = self.triggers or self.from_report
        cleaning, merging = self.method == "cleanclip", self._check_merging()
        instead = "where none is known, --merge-with OTHER --base BASE, or --method cleanclip --pairs FILE"
        something = bool(named or self.from_patch or cleaning or merging)
        _need(something, f"no trigger given; say --trigger TEXT, or --from-report scan.json; {instead}")
        _need(not (named and self.from_patch), "--from-patch applies a finished repair; it goes with no --trigger and no --from-report")
        _need(bool(self.out or self.patch), "nothing to write; say --out DIR or --patch FILE")
        if self.from_patch:
            _need(not self.patch, "--from-patch writes a directory; it goes with --out, not with --patch")
            self._unused("--from-patch", "component", "trainable", *TRAINING, "n_prompts")
        fits = self.component != "text-encoder" or self.trainable == "auto"
        _need(fits, f"--trainable {self.trainable} is a part of the UNet, --component says text-encoder; drop one of the two")
        for flag, path in (("--state", self.state), ("--patch", self.patch)):
            inside = self.out and path and path.resolve().is_relative_to(self.out.resolve())
            _need(not inside, f"{flag} {path} lies in --out {self.out}, which is written whole; name a place outside it")
        _need(all(self.triggers), "a trigger is the empty string; give the text that sets the backdoor off")
        _need(self.steps >= 1, f"--steps is {self.steps}; it must be at least 1")
        fewest = 2 if merging else 1
        _need(self.n_prompts >= fewest, f"--n-prompts is {self.n_prompts}; it must be at least {fewest}")
        _need(not (merging and len(self.prompts) == 1), "a merge is measured on several prompts; --prompts holds one")
        _need(self.learning_rate >= 0, f"--learning-rate is {self.learning_rate}; it must not be negative")
        _need(
            not (self.adapters and (cleaning or merging or self.from_patch)),
            "--lora merges an adapter into a model whose trigger is removed; it goes with --trigger or --from-report alone",
        )
        self._check_cleaning() if cleaning else self._check_no_cleaning()
        _need(0 <= self.attention_weight < 1, f"--attention-weight is {self.attention_weight}; it must lie in [0, 1)")

    @property
    def models(self) -> tuple[Path, ...]:
        """With the base and what is merged; LoRA files are no directories."""
        return (self.model, *([self.base] if self.base else []), *(path for path, _ in self.merge_with if not path.is_file()))

    def _check_cleaning(self) -> None:
        _need(self.pairs is not None, "--method cleanclip learns from pictures with captions; name their file with --pairs FILE")
        _need(self.component != "unet", "--method cleanclip cleans the text encoder, --component says unet; drop one of the two")
        _need(self.trainable == "auto", f"--trainable {self.trainable} is a part of the UNet, --method cleanclip cleans the text encoder")
        _need(not self.from_patch, "--from-patch applies a finished repair; it goes with no --method")
        _need(not self.from_report, "--from-report names triggers to remove; --method cleanclip needs none (--trigger measures one)")

    def _check_no_cleaning(self) -> None:
        given = {"--pairs": self.pairs, "--vision": self.vision, "--pretrain-objective": self.pretrain_objective != "unknown"}
        _need(not any(given.values()), f"{', '.join(k for k, v in given.items() if v)} goes with --method cleanclip; say that as well")

    def _check_merging(self) -> bool:
        """Whether it is a merge; raises where what belongs to one stands alone, or beside what does not belong to one."""
        if not self.merge_with:
            _need(self.base is None, "--base is what --merge-with is merged on; say --merge-with OTHER as well")
            _need(self.method not in MERGING, f"--method {self.method} merges fine-tunes of one base; say --merge-with and --base")
            return False
        _need(self.base is not None, "--merge-with needs --base BASE, the model that all of them were fine-tuned from")
        _need(self.method in ("auto", *MERGING), f"--merge-with goes with --method {', '.join(MERGING)}; got {self.method}")
        _need(not self.from_report, "--from-report names triggers to remove; --merge-with needs none (--trigger measures one)")
        _need(not self.from_patch, "--from-patch applies a finished repair; it goes with no --merge-with")
        whole = self.component == "auto" and self.trainable == "auto"
        _need(whole, "--merge-with merges the UNet and the text encoder; it goes with no --component and no --trainable")
        self._unused("--merge-with", *TRAINING)
        _need(self.dtype in ("auto", "float32"), f"--merge-with works in float32, the differences are too small for {self.dtype}")
        return True

    def _unused(self, by: str, *names: str) -> None:
        """Raises where a setting was given that ``by`` has no use for: it would stand in the record as if it had done something."""
        given = [name for name in names if getattr(self, name) != type(self).__dataclass_fields__[name].default]
        _need(not given, f"--{given[0].replace('_', '-') if given else ''} has no part in what {by} does; drop it")


@dataclass(frozen=True, kw_only=True)
class VerifyConfig(RunConfig):
    """``bdaudit verify``."""

    triggers: tuple[str, ...] = ()
    """Triggers whose success is measured, each by itself."""
    before: Path | None = None
    """The model that carried the backdoor: each trigger is measured on it too; quality is compared with it where there is no reference."""
    evidence: Evidence | Path = "required"
    """What shows that a text was ever a trigger: ``required`` is ``before``; a path is a report of the model that was repaired; ``none``
    lets a low rate stand for itself."""
    reference: Path | None = None
    """A model that is trusted, to compare quality with."""
    real_images: Path | None = None
    """A folder of pictures to take FID and KID against."""
    clip: str = "ViT-L-14/openai"
    """The grader: an open_clip name (MODEL/PRETRAINED) or local-dir:PATH."""
    target_image: Path | None = None
    """What the backdoor draws: a patch or a whole picture."""
    target_at: tuple[int, int] | None = None
    """Where the patch's top left corner lies, in pixels (x, y); None for a whole picture."""
    target_text: str = ""
    """What the backdoor shows, in words; {prompt} stands for the prompt."""
    swaps: tuple[tuple[str, str], ...] = ()
    """Words of the prompt that the backdoor exchanges: (old, new); gives the target text instead."""
    positions: tuple[str, ...] = ()
    """Where in the prompts the trigger is tried (prefix, middle, suffix, replace); empty for all that it can take."""
    n: int = 200
    """Pictures a condition."""
    reach: int = 16
    """Pictures for each other form of the trigger (twice, near it); 0 draws none."""
    steps: int = 12
    """Denoising steps a picture."""
    guidance_scale: float = 5.0
    """Classifier-free guidance; a guided step is two forward passes."""
    max_asr: float = 0.05
    """Bound on the upper end of the attack success rate's interval."""
    min_clip_score: float | None = None
    """Bound on the lower end of the CLIP score's interval."""
    max_kid: float | None = None
    """Bound on the upper end of KID's interval."""
    max_fid: float | None = None
    """Bound on FID."""
    min_clip_ratio: float = 0.95
    """With a baseline: bound on the CLIP score over the baseline's, paired on prompts and seeds."""
    max_distance: float | None = None
    """With a baseline: bound on the mean same-seed distance in the grader's features (0–2)."""
    save_images: Path | None = None
    """Where to write the evidence pictures."""
    state: Path | None = None
    """Where pictures are kept between runs; None keeps nothing."""
    policy: Path | None = None
    """The file that bounds were read from, for the record."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _need(all(self.triggers), "a trigger is the empty string; give the text that sets the backdoor off")
        _need(self.n >= 2, f"--n is {self.n}; it must be at least 2")
        _need(self.steps >= 1, f"--steps is {self.steps}; it must be at least 1")
        _need(self.reach >= 0, f"--reach is {self.reach}; it must not be negative")
        unknown = set(self.positions) - {"prefix", "middle", "suffix", "replace"}
        _need(not unknown, f"--position is {', '.join(sorted(unknown))}; expected prefix, middle, suffix or replace")
        _need(0 <= self.max_asr <= 1, f"--max-asr is {self.max_asr}; it is a rate between 0 and 1")
        targets = (self.target_image is not None, bool(self.target_text), bool(self.swaps))
        _need(sum(targets) <= 1, "give one of --target-image, --target-text and --swap, not several")
        told = self.target_text.strip() != "{prompt}"
        _need(told, "--target-text is {prompt}, what the picture shows without a backdoor; say what it shows with one")
        self._check_evidence()

    def _check_evidence(self) -> None:
        if not isinstance(self.evidence, Path):
            return
        said = f"--evidence {self.evidence}"
        _need(bool(self.triggers), f"{said} is about a trigger; say which with --trigger TEXT")
        _need(self.before is None, f"{said} stands in for --before, which measures the same and more; drop one of the two")
        for model in self.models:
            inside = self.evidence.resolve().is_relative_to(model.resolve())
            _need(not inside, f"{said} lies in {model}, whose maker wrote it; hand over a report of your own, from outside it")

    @property
    def baseline(self) -> Path | None:
        """What quality is compared with: the reference, or else the model from before the repair."""
        return self.reference or self.before

    @property
    def models(self) -> tuple[Path, ...]:
        """With the one from before the repair and the reference."""
        return (self.model, *(path for path in (self.before, self.reference) if path))
