"""What a verification's report is made of."""

from __future__ import annotations

from dataclasses import dataclass, field

from bdaudit.records.envelope import Check, Estimate, NotMeasured, Report


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
