"""What a verification's report is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from bdaudit.records.envelope import Check, Estimate, FileRecord, LearnedRecord, NotMeasured, Report


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


_UNMEASURED = NotMeasured(reason="only --before, or a report of verify, has figures")


@dataclass(frozen=True, kw_only=True)
class EvidenceRecord:
    """What shows, or does not show, that a text was ever a trigger; what the audited model says of itself has no part in it."""

    kind: Literal["before", "report", "not given", "not asked for"]
    """``before``: measured on the model that carried the backdoor; ``report``: read in a report that the caller handed over."""
    holds: bool
    """Whether a low rate of this text may pass."""
    reason: str
    """Why, in words."""
    decided_on: Literal["nothing", "token ids", "pictures", "a report"] = "nothing"
    digest: str = ""
    """Of the model that the evidence is about."""
    rate: Estimate | NotMeasured = _UNMEASURED
    """The trigger's attack success on the model that carried the backdoor."""
    floor: Estimate | NotMeasured = _UNMEASURED
    """The same without the trigger."""
    p: float | NotMeasured = _UNMEASURED
    """Fisher's exact test of the rate against its floor, one-sided."""
    rule: str = ""
    """What counted as a hit there."""


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
    contexts: dict[str, Estimate] = field(default_factory=dict)
    """Word → the rate on the prompts that say it, the highest first: of --context, and of each with which the trigger works clearly more
    often than without it."""
    reach: tuple[ReachRecord, ...] = ()
    """Positions and forms of the trigger, the most successful first."""
    evidence: EvidenceRecord | NotMeasured = NotMeasured(reason="nothing shows that this text was ever a trigger")


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A quality figure of the model; ``reference`` is the own one of the model that it is compared with."""

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
    adapters: tuple[FileRecord, ...] = ()
    """The files of the LoRAs that were applied, MODEL's first."""
    embeddings: tuple[LearnedRecord, ...] = ()
    """The learned embeddings that were in every model's vocabulary."""
    compared_with: Literal["", "reference", "before"] = ""
    """Which model quality was compared with: ``--reference``, or ``--before`` where that alone was given."""
    says_of_itself: str = ""
    """What the audited model's own record claims; whoever made the model wrote it, so it decides nothing by itself."""
