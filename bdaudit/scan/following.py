"""What is asked of the findings: which words of a suspicious prompt carry them, whether they come with an adapter, where they live."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from bdaudit.config import ScanConfig
from bdaudit.errors import BdauditError
from bdaudit.measure.calibration import Control, fit
from bdaudit.measure.opening import loaded
from bdaudit.measure.probe import Stage
from bdaudit.measure.signals import Values
from bdaudit.pipeline.inspect import Inspection
from bdaudit.pipeline.suspect import Suspect
from bdaudit.report.records import CandidateRecord, Localisation, NotMeasured, PromptRecord
from bdaudit.scan.candidates import family_of
from bdaudit.scan.families import Family, verdict
from bdaudit.scan.inside import shrunk, smallest
from bdaudit.scan.localise import localise


def prompt_records(
    config: ScanConfig, families: Sequence[Family], records: Sequence[CandidateRecord], p_of: Callable[[str], float]
) -> tuple[PromptRecord, ...]:
    """For each suspicious prompt the smallest sets of its words that are backdoored; ``p_of`` measures a text that was not among them."""
    found = {record.text for record in records if record.verdict == "backdoored"}
    by_name = {family.name: family for family in families}
    made = []
    for prompt in config.suspected:
        family = by_name[family_of(prompt)]
        fires = _fires(p_of, config.alpha / (family.size * len(families)))
        carriers = smallest(text for text in family.texts if text in found)
        fewest = [shrunk(text, fires) if len(text.split()) > 2 else text for text in carriers]
        made.append(PromptRecord(prompt=prompt, carriers=smallest(fewest), sets=len(family.texts)))
    return tuple(made)


def _fires(p_of: Callable[[str], float], level: float) -> Callable[[str], bool]:
    return lambda text: p_of(text) <= level


def located(
    config: ScanConfig, reference: Inspection | None, suspect: Suspect, stage: Stage, texts: Sequence[str]
) -> dict[str, Localisation | NotMeasured]:
    """Each finding by exchanging parts with the reference model; why not, where that cannot be used: a finding stands without it."""
    if reference is None or not texts:
        return {}
    try:
        other = loaded(replace(config, batch_size=suspect.batch_size), reference)
        return dict(localise(suspect, other, stage, texts))
    except BdauditError as error:
        return dict.fromkeys(texts, NotMeasured(reason=f"the reference cannot be used: {error}"))


def without_adapters(controls: Sequence[Control], kinds: Mapping[str, str], values: Mapping[str, Values], alpha: float) -> dict[str, str]:
    """What the base does with each finding by itself, in words, judged by the base's own controls; ``kinds`` has the findings.

    p is adjusted for the number of findings; between ``alpha`` and ten times as much it stays open.

    Raises:
        ValueError: the controls give no null.
    """
    null = fit(controls)
    return {text: _said(min(1.0, len(kinds) * null.p(null.score(kind, values[text]))), alpha) for text, kind in kinds.items()}


def _said(adjusted: float, alpha: float) -> str:
    found = verdict(adjusted, alpha)
    if found == "backdoored":
        return f"the base answers it without the adapter as well (p {adjusted:.2g} there), so leaving the adapter out does not help"
    if found == "suspicious":
        return f"with the adapter or without it, undecided: the base alone is suspicious (p {adjusted:.2g} there)"
    instead = "do not use the adapter, or let unlearn --lora write the base with it merged in and the backdoor removed"
    return f"comes with the adapter: the base alone stays silent (p {adjusted:.2g} there); {instead}"


def with_places(records: Sequence[CandidateRecord], places: Mapping[str, Localisation | NotMeasured]) -> tuple[CandidateRecord, ...]:
    """The records with where they live; ``unlearn``'s command then names the component."""
    return tuple(_placed(record, places[record.text]) if record.text in places else record for record in records)


def _placed(record: CandidateRecord, place: Localisation | NotMeasured) -> CandidateRecord:
    if isinstance(place, NotMeasured) or place.where not in place.swaps:
        return replace(record, localisation=place)
    component = "text encoder" if place.where == "text encoder" else f"unet, {place.where}"
    flag = " --component text-encoder" if place.where == "text encoder" else " --component unet"
    return replace(record, localisation=place, component=component, command=record.command + flag if record.command else "")
