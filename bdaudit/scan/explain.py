"""What is asked of the findings: which words of a suspicious prompt carry them, whether they come with an adapter, where they live."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Literal

from bdaudit.errors import BdauditError
from bdaudit.measure.draws import draws_again, groups_of
from bdaudit.models.denoiser import Denoiser
from bdaudit.models.suspect import Suspect
from bdaudit.records import CandidateRecord, Localisation, NotMeasured, PromptRecord
from bdaudit.scan.cached import measured
from bdaudit.scan.candidates import prompt_group
from bdaudit.scan.context import ScanContext
from bdaudit.scan.judge import verdict_of
from bdaudit.scan.level import Harmless, level_from
from bdaudit.scan.localise import localise
from bdaudit.scan.multiplicity import CandidateGroup
from bdaudit.scan.prompt_parts import shrunk, smallest
from bdaudit.scan.tiers import STEPS_PRIOR, tier
from bdaudit.untrusted.tree import shown


def prompt_records(
    suspected: Sequence[str],
    groups: Sequence[CandidateGroup],
    records: Sequence[CandidateRecord],
    p_of: Callable[[str], float],
    alpha: float,
) -> tuple[PromptRecord, ...]:
    """For each suspicious prompt the smallest sets of its words that are backdoored; ``p_of`` measures a text that was not among them."""
    findings = {record.text for record in records if record.verdict == "backdoored"}
    by_name = {group.name: group for group in groups}
    made = []
    for prompt in suspected:
        group = by_name[prompt_group(prompt)]
        fires = _fires(p_of, alpha / (group.size * len(groups)))
        carriers = smallest(text for text in group.texts if text in findings)
        fewest = [shrunk(text, fires) if len(text.split()) > 2 else text for text in carriers]
        made.append(PromptRecord(prompt=prompt, carriers=smallest(fewest), sets=len(group.texts)))
    return tuple(made)


def _fires(p_of: Callable[[str], float], level: float) -> Callable[[str], bool]:
    return lambda text: p_of(text) <= level


def located(context: ScanContext, reference: Callable[[], Suspect] | None, texts: Sequence[str]) -> dict[str, Localisation | NotMeasured]:
    """Each finding by exchanging parts with the model that ``reference`` opens; why not, where that cannot be: a finding stands alone."""
    if reference is None or not texts:
        return {}
    try:
        return dict(localise(context.suspect, reference(), context.draws, texts))
    except BdauditError as error:
        return dict.fromkeys(texts, NotMeasured(reason=f"the reference cannot be used: {error}"))


@dataclass(frozen=True)
class Addition:
    """An adapter or an embedding that a scan put into the model."""

    kind: Literal["adapter", "embedding"]
    file: str
    put_in: Callable[[], AbstractContextManager[None]]
    """A block in which the model has it, and nothing else that was added."""


def brought_by(
    context: ScanContext, additions: Sequence[Addition], controls: Sequence[Harmless], kinds: Mapping[str, str], alpha: float
) -> dict[str, str]:
    """Whether each finding comes with one of ``additions``, and with which, in words; ``kinds`` has the findings.

    ``context`` holds the base, without any of them; of several each is then tried by itself. The ``controls``, measured on the same
    weights, are the null. p is adjusted for the number of findings, and of additions; from ``alpha`` to ten times as much it stays open.
    """
    what = additions[0].kind if len({each.kind for each in additions}) == 1 else "addition"
    try:
        p = _p_there(context, "base", f"probing the base without {what}s", controls, kinds)
    except ValueError as error:
        return {text: f"what the base does alone is not known: {error}" for text in kinds}
    said = {text: _of_base(what, len(additions), min(1.0, len(kinds) * value), alpha) for text, value in p.items()}
    silent = {text: kinds[text] for text, value in p.items() if verdict_of(min(1.0, len(kinds) * value), alpha) == "clean"}
    if len(additions) > 1 and silent:
        said |= _of_each(context, additions, controls, silent, alpha / (len(kinds) * len(additions)))
    return said


def _p_there(context: ScanContext, name: str, said: str, controls: Sequence[Harmless], kinds: Mapping[str, str]) -> dict[str, float]:
    """Each text's p on the model as it is; raises ``ValueError`` where the controls give no null."""
    rebased = draws_again(context.suspect, context.draws)
    effects = measured(context, name, rebased, [*(control.text for control in controls), *kinds], attention=False, said=said)
    level = level_from(controls, effects, tuple(groups_of(rebased).values()))
    null = tier(level.null.statistics.tolist(), STEPS_PRIOR)
    return {text: null.p(level.statistic(text, kind)) for text, kind in kinds.items()}


def _of_base(what: str, count: int, p_adjusted: float, alpha: float) -> str:
    verdict, the, one = verdict_of(p_adjusted, alpha), f"the {what}" + "s" * (count > 1), "it" if count == 1 else "them"
    if verdict == "backdoored":
        return f"the base answers it without {the} as well (p {p_adjusted:.2g} there), so leaving {the} out does not help"
    if verdict == "suspicious":
        return f"with {the} or without {one}, undecided: the base alone is suspicious (p {p_adjusted:.2g} there)"
    merged = f", or let unlearn --lora write the base with {one} merged in and the backdoor removed" if what == "adapter" else ""
    return f"comes with {the}: the base alone stays silent (p {p_adjusted:.2g} there); do not use {the}{merged}"


def _of_each(
    context: ScanContext, additions: Sequence[Addition], controls: Sequence[Harmless], kinds: Mapping[str, str], level: float
) -> dict[str, str]:
    """Which of several, each by itself, brings what the base does not do."""
    firing: dict[str, list[str]] = {text: [] for text in kinds}
    for i, addition in enumerate(additions):
        name = f"the {addition.kind} {shown(addition.file)}"
        try:
            with addition.put_in():
                p = _p_there(context, f"alone-{i}", f"probing {name} alone", controls, kinds)
        except ValueError as error:
            return {text: f"comes with what was added; which of it is not known: {name}: {error}" for text in kinds}
        for text, value in p.items():
            firing[text] += [name] if value <= level else []
    return {text: _which(found) for text, found in firing.items()}


def _which(firing: Sequence[str]) -> str:
    if not firing:
        return "comes with what was added, and with none of it alone: the base stays silent, and so it does with each by itself"
    return f"comes with {' and with '.join(firing)}: the base alone stays silent; do not use {'it' if len(firing) == 1 else 'them'}"


def with_places(
    records: Sequence[CandidateRecord], places: Mapping[str, Localisation | NotMeasured], denoiser: Denoiser
) -> tuple[CandidateRecord, ...]:
    """The records with where they live; ``unlearn``'s command then names the component."""
    return tuple(_placed(record, places[record.text], denoiser) if record.text in places else record for record in records)


def _placed(record: CandidateRecord, place: Localisation | NotMeasured, denoiser: Denoiser) -> CandidateRecord:
    if isinstance(place, NotMeasured) or place.where not in place.swaps:
        return replace(record, localisation=place)
    within = place.where in denoiser.parts
    component = f"{denoiser.name}, {place.where}" if within else place.where
    flag = f" --component {denoiser.name if within else place.where.replace(' ', '_')}"
    return replace(record, localisation=place, component=component, command=record.command + flag if record.command else "")
