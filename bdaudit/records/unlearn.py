"""What a repair's report is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from bdaudit.records.envelope import Check, Estimate, FileRecord, NotMeasured, Report


@dataclass(frozen=True, kw_only=True)
class LossPoint:
    step: int
    total: float
    terms: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class ChangedTensor:
    name: str
    relative_change: float
    """‖after − before‖ / ‖before‖."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One set of tensors that was repaired."""

    trainable: str
    """closed-form (keys and values, solved for), or trained: cross-attention, unet or text-encoder."""
    steps: int
    outcome: str
    """What its check found, in words; why a wider set was tried, if one was."""


@dataclass(frozen=True, kw_only=True)
class CanaryRecord:
    """A trigger of our own that was planted in the copy."""

    kind: str
    """rare word, look-alike or invisible."""
    text: str
    target: str
    """The caption that it stood for."""
    before: Estimate
    """The share of captions that it turned into its target before cleaning."""


@dataclass(frozen=True, kw_only=True)
class CanaryLeft:
    """What there is of one canary at a point."""

    kind: str
    rate: Estimate
    residue: Estimate


@dataclass(frozen=True, kw_only=True)
class CleaningPoint:
    """A copy of the model with canaries in it, cleaned so far at one learning rate."""

    rate: float
    """What a step changes a tensor by at most, as a share of its own RMS."""
    step: int
    passes: float
    """How often each pair was seen so far."""
    accuracy: Estimate
    residue: Estimate
    """How far the canary that moves an encoding most still moves it towards its target: 1 all the way, 0 not at all; mean over captions."""
    spread: float
    """How far encodings of different captions lie apart, as a share of the start's."""
    canaries: tuple[CanaryLeft, ...]
    """Each of them, in the order of the record's."""
    rejected: str = ""
    """Why it may not be chosen; else empty."""


@dataclass(frozen=True, kw_only=True)
class CleaningRecord:
    """Contrastive cleaning: the whole scatter, and what was chosen of it blind."""

    mode: Literal["with a vision tower", "partial: text alone"]
    pretrain_objective: str
    consequence: str
    """What is published of this pre-training objective."""
    pairs: int
    held_out: int
    """Of the pairs, not trained on: accuracy is measured on them."""
    accuracy_is: str
    canaries: tuple[CanaryRecord, ...]
    accuracy_before: Estimate | NotMeasured
    points: tuple[CleaningPoint, ...] = ()
    chosen: int = -1
    """Which of ``points``; −1 for none."""
    accuracy_after: Estimate | NotMeasured = NotMeasured(reason="nothing was chosen")
    """The model's own, cleaned like the chosen copy."""


@dataclass(frozen=True, kw_only=True)
class ContributorRecord:
    """One fine-tune that went into a merge; its task vector is its difference from the base."""

    path: str
    """As given."""
    sha256: str
    """A directory's digest, or a LoRA file's."""
    distance: float
    """Median over its weights of two and more dimensions of ‖own − base‖ / RMS(‖own‖, ‖base‖), of the component that moved furthest."""
    kept: float
    """How much of its task vector is in the merge: the merge's projection on it, 1 for all of it."""
    shared_mask: float | NotMeasured
    """What the mask that all share leaves of its task vector, norm over norm; above 1 where it strengthens."""
    safety_mask: float | NotMeasured
    """What its own safety mask leaves of it, 0 to 1."""
    most_masked: tuple[str, ...] = ()
    """The tensors of which the safety mask takes out the largest share, those first."""
    quality: Estimate | NotMeasured
    """The merge's mean squared distance from it on clean prompts, as a share of the base's: 0 the same, 1 no nearer than the base."""
    soft_token: Estimate | NotMeasured
    """What a soft token that was looked for in this contributor does there beyond what it does in the base; 1 is what a prompt changes."""
    soft_token_after: Estimate | NotMeasured
    """The same token in the merge."""
    triggers: dict[str, Estimate] = field(default_factory=dict)
    """The effect of each named trigger in it, beside harmless texts of its kind."""
    backdoor: str = ""
    """Whether it carries a named trigger, and whether the merge does, in words."""


@dataclass(frozen=True, kw_only=True)
class AppliedAdapter:
    """A LoRA that is part of a repaired model."""

    scale: float
    files: tuple[FileRecord, ...]
    """Its weights, by their path as given; peft's settings where they count."""


@dataclass(frozen=True, kw_only=True)
class UnlearnReport(Report):
    triggers: tuple[str, ...] = ()
    contexts: tuple[str, ...] = ()
    """Words that a prompt must say for a trigger to work, named or found; the figures are of prompts half of which say one of them."""
    method: str = ""
    component: str = ""
    component_reason: str = ""
    steps: int = 0
    loss: tuple[LossPoint, ...] = ()
    changed: tuple[ChangedTensor, ...] = ()
    before: dict[str, Estimate] = field(default_factory=dict)
    """The effect of each trigger before, by name of the measure."""
    after: dict[str, Estimate] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    out: str = ""
    """Where the repaired model was written; empty where nothing was."""
    written: tuple[FileRecord, ...] = ()
    next_command: str = ""
    """What to type to have ``out`` graded beside the model that it was made of; empty where nothing was written."""
    attempts: tuple[Attempt, ...] = ()
    """The sets of tensors that were repaired, the smallest first; the last is what ``changed`` shows."""
    resumed_at: int = 0
    """The step at which training went on from an interrupted run; 0 where it began here."""
    forward_passes: int = 0
    """Latents through the denoiser in this run, its own check included; a guided step is two."""
    patch: str = ""
    """Where the difference alone was written; empty where it was not."""
    patch_sha256: str = ""
    cleaning: CleaningRecord | NotMeasured = NotMeasured(reason="another method")
    adapters: tuple[AppliedAdapter, ...] = ()
    """With ``--lora``: what was merged into the model before its repair, and is in what was written."""
    merged: tuple[ContributorRecord, ...] = ()
    """With ``--merge-with``: each contributor, the model itself first."""
