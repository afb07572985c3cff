"""What a scan's report is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from bdaudit.records.envelope import FileRecord, LearnedRecord, NotMeasured, Report, Verdict

SIGNALS = (
    "noise shift", "context shift", "common shift", "override", "state shift", "attention share", "assimilation", "path shift", "path peak",
    "path common", "shift in context",
)  # fmt: skip
"""All signals of one statistic, the foremost first."""


CandidateVerdict = Literal["clean", "suspicious", "backdoored", "suspicious (accepted)", "backdoored (accepted)", "does what it says"]
"""``does what it says``: it would be a finding, and by --clip changes pictures towards what it means, and towards nothing else more.
``(accepted)``: a person let the finding through by --accept; it does not reach the gate."""


Encoding = tuple[tuple[int, ...], tuple[tuple[str, tuple[int, ...]], ...]]
"""What a text is to a model: the main reader's ids, and each reader's where they are not all the same."""


def encoding_of(token_ids: Sequence[int], reader_ids: Mapping[str, Sequence[int]]) -> Encoding:
    """Equal for texts that are the same to every reader."""
    main = tuple(token_ids)
    each = tuple(sorted((name, tuple(ids)) for name, ids in reader_ids.items()))
    return main, each if any(ids != main for _, ids in each) else ()


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
    """By the main reader, through whose vocabulary sweeps go."""
    reader_ids: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """By each reader, under the folder of its encoder; empty in reports from before 1.6."""
    kind: str
    """word, phrase, rare, character, zero-width, emoji: which controls it was compared with."""
    signals: dict[str, SignalRecord]
    depth: Literal["screened", "measured", "followed"] = "measured"
    """How far it was looked at: on a few draws, on all, or along whole paths as well."""
    score: float
    """−log10 of ``p``; larger is more suspicious."""
    effect: float
    """How many times as far as the median control of all kinds the text moves the noise prediction."""
    p: float
    p_adjusted: float
    """Holm-adjusted over all that its source went through, and for the number of sources."""
    verdict: CandidateVerdict
    same_as: str = ""
    """Another candidate with the same token ids, whose measurement this is; else empty."""
    component: str = "not localised"
    """Where the effect enters: text encoder, or the denoiser by its name; or why that was not decided."""
    command: str = ""
    """What to type next, for a finding."""
    reading: str = ""
    """Of a text that a list spells like a character's code or name, and of what it means: which of the two this is; else empty."""
    source: str = "list"
    """What brought it here: list, vocabulary (of a reader), joined words, unicode, pairs, recovered texts, or a prompt.
    Its p is adjusted for all that went through."""
    localisation: Localisation | NotMeasured = NotMeasured(reason="only findings are localised, and only with a reference model")
    adapter: str = ""
    """With adapters or embeddings: whether the finding comes with them, and with which; else empty."""
    word_like: str = ""
    """Evidence for a person beside a finding, never a pass: it does no more than a word does that means something; else empty."""
    meaning: str = ""
    """Of a finding: what --clip says of it, or what would settle it; else empty."""
    acceptance: str = ""
    """Of a finding that an entry of --accept names: until when and why it is accepted, or why it stands; else empty."""
    accept_entry: str = ""
    """Of what reaches the gate: the entry of --accept that would let it through, as JSON, its reason left empty."""
    variant: str = ""
    """With --variant all: the weights that it was measured on; else empty."""

    @property
    def encoding(self) -> Encoding:
        """Equal for texts that are the same to every reader."""
        return encoding_of(self.token_ids, self.reader_ids)


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
class EncoderRecord:
    """What the text encoder gave away by itself, no denoiser asked, and a verdict on it.

    What is left is a share: how far apart the search's prompts are with a thing in each of them, over how far they were without.
    """

    choices: int
    """Mixtures that were moved, from different starts."""
    soft_left: float
    """Beside the strongest mixture."""
    text_left: float
    """Beside the strongest text that was named; 1 where none was."""
    text: str
    """That text; empty where none was named."""
    limit: float
    """What a text must leave less than for the encoder to be suspicious: set on small encoders."""
    verdict: Verdict
    """Never *backdoored*, since it has no p."""


@dataclass(frozen=True, kw_only=True)
class RecoveryRecord:
    """What no text was needed for: the strongest mixture of the vocabulary's entries, and a verdict on the model as a whole.

    Pulls are ratios: how many times as far as the median entry a thing moves the prediction, at equal movement of the text encoding, on
    prompts and noise that the full measurement does not use.
    """

    choices: int
    """Mixtures that were moved, from different starts."""
    gradients: int
    """Backward passes through the denoiser, one latent each, beside the forward passes."""
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
    named_pull: float
    """The text's pull, times the share of the mixture's pull that it is: what moves the model a great deal and has a name."""
    limit: float
    """The named pull beyond which the model as a whole is suspicious: set on small models."""
    verdict: Verdict
    """Suspicious by the named pull, or where the text encoder is by itself; never *backdoored*, since it has no p."""
    encoder: EncoderRecord | NotMeasured = NotMeasured(reason="this version did not ask the text encoder by itself")


@dataclass(frozen=True, kw_only=True)
class PromptRecord:
    """A suspicious prompt, and what in it carries a trigger."""

    prompt: str
    carriers: tuple[str, ...]
    """The smallest sets of its words or characters that are backdoored by themselves; none where nothing was found."""
    sets: int
    """Sets that were measured."""


@dataclass(frozen=True, kw_only=True)
class AcceptanceRecord:
    """One entry of ``--accept``, and what became of it."""

    model: str
    """Digest of the audited model, with --lora and --embedding one over these too; ``*`` is any model."""
    token_ids: tuple[int, ...]
    reader_ids: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """By each reader; empty where all of them read the same."""
    reason: str
    expires: str
    """The last day that it holds, YYYY-MM-DD in UTC."""
    effect: float
    """Of the finding when it was accepted."""
    outcome: Literal["accepted", "outgrown", "expired", "unused", "another model"]
    """``outgrown``: the finding is more than twice as strong by now, and stands."""
    said: str
    """The same in words."""


@dataclass(frozen=True, kw_only=True)
class EarlierFinding:
    """What an earlier scan of the same model found, with --keep."""

    text: str
    token_ids: tuple[int, ...]
    reader_ids: dict[str, tuple[int, ...]] = field(default_factory=dict)
    effect: float
    p_adjusted: float
    seed: int
    """Of that run."""

    @property
    def encoding(self) -> Encoding:
        """Equal for texts that are the same to every reader."""
        return encoding_of(self.token_ids, self.reader_ids)


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
    smallest_context: float = 0.0
    """The smallest share of the prompts such that every word with it or more stands in two draws: a trigger that needs one of these words
    beside it was looked for."""
    forward_passes: int
    forward_passes_per_candidate: int
    """In the mean over candidates and controls."""


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
    """Denoiser and text encoder."""
    signals: dict[str, str | NotMeasured]
    """The signal that each part's copy gives, with its null in words."""


@dataclass(frozen=True, kw_only=True)
class WeightApart:
    """A row of an embedding table, or a single layer, that stands apart from the rest of its kind: evidence, no verdict."""

    part: str
    """The folder of a text encoder, or the denoiser's name."""
    where: str
    """``row`` and its number, or the name of the weight."""
    text: str = ""
    """Of a row: what its entry reads as."""
    beside: str = ""
    """Of a row that is nearly another one: what that one's entry reads as."""
    measure: Literal["length", "neighbour", "size", "change", "direction"]
    """length: a row's norm. neighbour: the cosine with its nearest other row. size: a layer's root mean square. change: the distance from
    the reference's, as a share of its norm. direction: the share of that difference's squares in its first singular value."""
    value: float
    score: float
    """In units of the others' own spread; 0 where it is not by comparison."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What the weights say by themselves, without a forward pass."""

    apart: tuple[WeightApart, ...]
    looked_at: dict[str, int]
    """Part → its matrices; with ``, rows`` behind it, the rows of its embedding table."""
    against_reference: bool
    not_looked_at: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ScanReport(Report):
    candidates: tuple[CandidateRecord, ...] = ()
    calibration: Calibration | NotMeasured = NotMeasured(reason="the run ended before calibration")
    sweeps: tuple[SweepRecord, ...] = ()
    prompts: tuple[PromptRecord, ...] = ()
    acceptances: tuple[AcceptanceRecord, ...] = ()
    """Every entry of --accept, once there are verdicts."""
    adapters: tuple[FileRecord, ...] = ()
    """The files of the LoRAs that were applied, by their paths as given; peft's settings where they count."""
    embeddings: tuple[LearnedRecord, ...] = ()
    """The learned embeddings that were in the vocabulary; the token of each was a candidate."""
    recovery: RecoveryRecord | NotMeasured = NotMeasured(reason="--sweep recovery was not asked for")
    earlier: tuple[EarlierFinding, ...] = ()
    """Findings of earlier runs of this model that this one did not make, with --keep: they stand."""
    images: tuple[str, ...] = ()
    """Where the sheets of --pictures lie, one a finding; a page shows them when asked to."""
    exposure: Exposure | NotMeasured = NotMeasured(reason="only with --expose")
    weights: Weights | NotMeasured = NotMeasured(reason="the run ended before it")
    """Rows and layers that stand apart; none of them decides a verdict."""
