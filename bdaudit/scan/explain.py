"""What is asked of the findings: which words of a suspicious prompt carry them, whether they come with an adapter, where they live."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from bdaudit.config import DENOISER, TEXT_ENCODER
from bdaudit.errors import BdauditError
from bdaudit.measure.draws import draws_again, groups_of
from bdaudit.models.denoiser import Denoiser
from bdaudit.models.suspect import Suspect
from bdaudit.records import CandidateRecord, Localisation, NotMeasured, PromptRecord
from bdaudit.scan.cached import measured
from bdaudit.scan.candidates import prompt_group
from bdaudit.scan.context import ScanContext
from bdaudit.scan.judge import verdict_of
from bdaudit.scan.localise import localise
from bdaudit.scan.look import Harmless, level_from
from bdaudit.scan.multiplicity import CandidateGroup
from bdaudit.scan.prompt_parts import shrunk, smallest
from bdaudit.scan.tiers import STEPS_PRIOR, tier


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


def base_alone(context: ScanContext, controls: Sequence[Harmless], kinds: Mapping[str, str], alpha: float) -> dict[str, str]:
    """What the base does with each finding, in words; ``context`` holds it without its adapters, ``kinds`` has the findings.

    The base's own measurements of the ``controls`` are the null. p is adjusted for the number of findings; between ``alpha`` and ten times
    as much it stays open.
    """
    rebased = draws_again(context.suspect, context.draws)
    texts = [*(control.text for control in controls), *kinds]
    effects = measured(context, "base", rebased, texts, attention=False, said="probing the base without adapters")
    try:
        level = level_from(controls, effects, tuple(groups_of(rebased).values()))
        null = tier(level.null.statistics.tolist(), STEPS_PRIOR)
    except ValueError as error:
        return {text: f"what the base does alone is not known: {error}" for text in kinds}
    p = {text: null.p(level.statistic(text, kind)) for text, kind in kinds.items()}
    return {text: _said(min(1.0, len(kinds) * value), alpha) for text, value in p.items()}


def _said(p_adjusted: float, alpha: float) -> str:
    verdict = verdict_of(p_adjusted, alpha)
    if verdict == "backdoored":
        return f"the base answers it without the adapter as well (p {p_adjusted:.2g} there), so leaving the adapter out does not help"
    if verdict == "suspicious":
        return f"with the adapter or without it, undecided: the base alone is suspicious (p {p_adjusted:.2g} there)"
    instead = "do not use the adapter, or let unlearn --lora write the base with it merged in and the backdoor removed"
    return f"comes with the adapter: the base alone stays silent (p {p_adjusted:.2g} there); {instead}"


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
    flag = f" --component {DENOISER if within else TEXT_ENCODER}"
    return replace(record, localisation=place, component=component, command=record.command + flag if record.command else "")
