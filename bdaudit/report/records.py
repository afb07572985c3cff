"""The records a report is made of: frozen dataclasses, one envelope for the three verbs.

"Not measured" is a value with a reason, never None, NaN, 0 or an empty string.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

SCHEMA_VERSION = "1.0.0"

Verdict = Literal["clean", "suspicious", "backdoored"]


@dataclass(frozen=True, kw_only=True)
class NotMeasured:
    """Stands where a value would, and says why there is none."""

    reason: str
    status: Literal["not measured"] = "not measured"


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure with its uncertainty."""

    value: float
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""
    n: int
    """What it was computed from: pictures, pairs or texts."""
    method: str
    """How the interval was made, with its level: ``Wilson 95 %``."""


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    path: str
    """Relative to the model directory."""
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    path: str
    """As given."""
    pipeline: str
    """Pipeline class."""
    digest: str
    """SHA-256 over the sorted list of files and their digests."""
    files: tuple[FileRecord, ...]
    notes: tuple[str, ...] = ()
    """What was seen and left alone: unused pickles, extra files."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    python: str
    torch: str
    diffusers: str
    transformers: str
    device: str
    dtype: str
    batch_size_asked: int
    batch_size_used: int


@dataclass(frozen=True, kw_only=True)
class Exit:
    code: int
    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Skipped:
    what: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Coverage:
    asked: int
    tested: int
    skipped: tuple[Skipped, ...] = ()
    not_looked_at: tuple[str, ...] = ()
    """What this run did not examine, in words."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """The envelope. ``kind``-specific results are in the subclasses."""

    command: str
    status: Literal["completed", "interrupted", "error"]
    exit: Exit
    created_at: str
    """UTC, ISO 8601."""
    timings: dict[str, float]
    """Seconds a stage."""
    model: ModelRecord | NotMeasured
    environment: Environment | NotMeasured
    config: dict[str, Any]
    coverage: Coverage
    limitations: tuple[str, ...]
    tool: dict[str, str] = field(default_factory=dict)
    """name, version."""
    schema_version: str = SCHEMA_VERSION


# --- scan -------------------------------------------------------------------------------------


DECIDING = ("noise shift", "common shift", "override")
"""The signals that decide; the others are reported beside them."""


@dataclass(frozen=True, kw_only=True)
class SignalRecord:
    """One signal of one candidate."""

    value: float
    """In the signal's own unit."""
    score: float
    """At the strongest position, against the controls that move the text encoding as far: for the deciding signals (noise shift, common
    shift, override) how many times as far the text goes, for the others a robust standard score. Of what is left in an exposed copy:
    against the controls with about the same effect."""
    p: float
    """Chance of a value this extreme for a harmless text of the same kind."""


@dataclass(frozen=True, kw_only=True)
class SwapRecord:
    """One part of the model exchanged with the reference's; shares of the effect, 1 the audited model's own, 0 the reference's."""

    left: float
    """What is left of the effect where this part comes from the reference and all else from the audited model."""
    brought: float
    """What there is of it where this part alone comes from the audited model."""


@dataclass(frozen=True, kw_only=True)
class Localisation:
    """Where a finding lives, by exchanging parts with a reference model."""

    where: str
    """The smallest part, or parts, that carry it, in words."""
    swaps: dict[str, SwapRecord]


@dataclass(frozen=True, kw_only=True)
class CandidateRecord:
    rank: int
    """1 is the most suspicious."""
    text: str
    codepoints: tuple[str, ...]
    """``U+020F`` and so on."""
    token_ids: tuple[int, ...]
    kind: str
    """word, phrase, rare, character, zero-width, emoji: which controls it was compared with."""
    signals: dict[str, SignalRecord]
    score: float
    """−log10 of ``p``; larger is more suspicious."""
    effect: float
    """How many times as far as the median control of all kinds the text moves the noise prediction."""
    p: float
    p_adjusted: float
    """Holm-adjusted over all that its source went through, and for the number of sources."""
    verdict: Verdict
    same_as: str = ""
    """Another candidate with the same token ids, whose measurement this is; else empty."""
    component: str = "not localised"
    """Where the effect enters: text encoder, unet; or why that was not decided."""
    command: str = ""
    """What to type next, for a finding."""
    source: str = "list"
    """What brought it here: list, vocabulary, joined words, unicode, pairs, recovered texts, or a prompt.
    Its p is adjusted for all that went through."""
    localisation: Localisation | NotMeasured = NotMeasured(reason="only findings are localised, and only with a reference model")
    adapter: str = ""
    """With adapters: whether the finding comes with them; else empty."""


@dataclass(frozen=True, kw_only=True)
class RoundRecord:
    """One round of a sweep."""

    texts: int
    passes: int
    """Forward passes a text."""
    kept: int


@dataclass(frozen=True, kw_only=True)
class SweepRecord:
    """What one sweep went through."""

    name: str
    swept: int
    """Texts, no two that encode alike."""
    adjusted_for: int
    """Texts that could have come through: what the p-values of those that did are adjusted for."""
    survivors: int
    """Texts that were measured in full."""
    rounds: tuple[RoundRecord, ...]
    forward_passes: int
    unreachable: tuple[str, ...] = ()
    """Entries of the vocabulary that no text encodes to alone."""
    dropped: tuple[str, ...] = ()
    """Texts that encode to nothing."""


@dataclass(frozen=True, kw_only=True)
class RecoveryRecord:
    """What no text was needed for: the strongest mixture of the vocabulary's entries. Information; no verdict is made of it.

    Pulls are ratios: how many times as far as the median entry a thing moves the prediction, at equal movement of the text encoding, on
    prompts and noise that the full measurement does not use.
    """

    choices: int
    """Mixtures that were moved, from different starts."""
    gradients: int
    """Backward passes through the UNet, one latent each, beside the forward passes."""
    soft_pull: float
    """Of the strongest mixture."""
    text_pull: float
    """Of the strongest text that was named."""
    text: str
    """That text; empty where none was named."""
    strongest_entry: float
    """Of the strongest of the entries drawn at random that give the median."""
    drawn: int
    """How many those are."""


@dataclass(frozen=True, kw_only=True)
class PromptRecord:
    """A suspicious prompt, and what in it carries a trigger."""

    prompt: str
    carriers: tuple[str, ...]
    """The smallest sets of its words or characters that are backdoored by themselves; none where nothing was found."""
    sets: int
    """Sets that were measured."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    n_controls: int
    kinds: dict[str, int]
    """Controls of each kind."""
    quantiles: dict[str, float]
    """Quantiles of the controls' own score, each compared with the others."""
    tail: str
    """The tail model and how it was fitted, in words and figures."""
    alpha: float
    forward_passes: int
    forward_passes_per_candidate: int


@dataclass(frozen=True, kw_only=True)
class GainPoint:
    """One measurement on the way to an exposed copy."""

    step: int
    gain: float
    """What captions still buy, as a share of what they buy in the model itself."""


@dataclass(frozen=True, kw_only=True)
class ExposedPart:
    """One part of the model after its caption sense was unlearned, in memory."""

    reached: bool
    """Whether the gain came down to where it was to stop; if not, nothing is read off this copy."""
    seconds: float
    curve: tuple[GainPoint, ...]
    """The last point is the copy's."""


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """``--expose``: how the copies were made, and what was made of them."""

    method: str
    stop: float
    """Share of the captions' gain at which a copy is exposed."""
    parts: dict[str, ExposedPart]
    """UNet and text encoder."""
    signals: dict[str, str | NotMeasured]
    """The signal that each part's copy gives, with its null in words."""


@dataclass(frozen=True, kw_only=True)
class ScanReport(Report):
    candidates: tuple[CandidateRecord, ...] = ()
    calibration: Calibration | NotMeasured = NotMeasured(reason="the run ended before calibration")
    sweeps: tuple[SweepRecord, ...] = ()
    prompts: tuple[PromptRecord, ...] = ()
    adapters: tuple[FileRecord, ...] = ()
    """The LoRA files that were applied, by their paths as given."""
    recovery: RecoveryRecord | NotMeasured = NotMeasured(reason="--sweep recovery was not asked for")
    exposure: Exposure | NotMeasured = NotMeasured(reason="only with --expose")


# --- unlearn ----------------------------------------------------------------------------------


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
class Check:
    """One check against a bound."""

    name: str
    status: Literal["passed", "failed", "not measured"]
    value: Estimate | NotMeasured
    bound: str
    """In words: ``≤ 0.05``; or ``none`` where nothing gates on it."""
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class CleaningPoint:
    """A copy of the model with the canary in it, cleaned so far at one learning rate."""

    rate: float
    """What a step changes a tensor by at most, as a share of its own RMS."""
    step: int
    passes: float
    """How often each pair was seen so far."""
    accuracy: Estimate
    canary: Estimate
    """The share of captions that the canary still turns into its target."""
    residue: Estimate
    """How far the canary still moves an encoding towards its target: 1 all the way, 0 not at all; mean over captions."""
    spread: float
    """How far encodings of different captions lie apart, as a share of the start's."""
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
    canary: str
    """The trigger that was planted in the copy."""
    canary_target: str
    """The caption that it stood for."""
    canary_before: Estimate | NotMeasured
    accuracy_before: Estimate | NotMeasured
    points: tuple[CleaningPoint, ...] = ()
    chosen: int = -1
    """Which of ``points``; −1 for none."""
    accuracy_after: Estimate | NotMeasured = NotMeasured(reason="nothing was chosen")
    """The model's own, cleaned like the chosen copy."""


@dataclass(frozen=True, kw_only=True)
class UnlearnReport(Report):
    triggers: tuple[str, ...] = ()
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
    attempts: tuple[Attempt, ...] = ()
    """The sets of tensors that were repaired, the smallest first; the last is what ``changed`` shows."""
    resumed_at: int = 0
    """The step at which training went on from an interrupted run; 0 where it began here."""
    patch: str = ""
    """Where the difference alone was written; empty where it was not."""
    patch_sha256: str = ""
    cleaning: CleaningRecord | NotMeasured = NotMeasured(reason="another method")
    merged: tuple[ContributorRecord, ...] = ()
    """With ``--merge-with``: each contributor, the model itself first."""


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


# --- verify -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ReachRecord:
    """How often one form of the trigger, or one position of it, works."""

    what: str
    """``at prefix``, ``twice``, ``near: one word of it`` and so on."""
    text: str
    """What stood in the prompts."""
    codepoints: tuple[str, ...]
    rate: Estimate | NotMeasured
    floor: Estimate | NotMeasured
    """The same rule on as many pictures without the trigger."""
    p: float | NotMeasured
    """Fisher's exact test against the floor, one-sided; not adjusted for the number of forms."""


@dataclass(frozen=True, kw_only=True)
class AttackRecord:
    """The attack success rate of one trigger."""

    trigger: str
    codepoints: tuple[str, ...]
    token_ids: tuple[int, ...]
    rule: str
    """What counts as a hit, in words."""
    rate: Estimate | NotMeasured
    """On pictures drawn with the trigger."""
    floor: Estimate | NotMeasured
    """The same rule on the same model's pictures without the trigger."""
    reference: Estimate | NotMeasured
    """The same rule on the reference model's pictures with the trigger."""
    p: float | NotMeasured
    """Chance of at least so many hits if the trigger did no more than the floor does (Fisher's exact test, one-sided)."""
    positions: dict[str, int] = field(default_factory=dict)
    """How many pictures had the trigger at each position."""
    reach: tuple[ReachRecord, ...] = ()
    """Positions and forms of the trigger, the most successful first."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A quality figure of the model; ``reference`` is the reference model's own."""

    value: Estimate | NotMeasured
    reference: Estimate | NotMeasured
    detail: str
    """Which feature extractor or grader, against what."""


@dataclass(frozen=True, kw_only=True)
class VerifyReport(Report):
    attacks: tuple[AttackRecord, ...] = ()
    metrics: dict[str, Metric] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    images: tuple[str, ...] = ()
    """Pictures that were written, relative to the report's working directory or absolute as given."""
    pictures: dict[str, int] = field(default_factory=dict)
    """How many were drawn, reused from the state directory, and damaged there (so drawn again)."""
