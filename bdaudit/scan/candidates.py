"""The candidates of a run and where each came from: the list, sweeps, and prompts that may hold a trigger."""

from __future__ import annotations

from collections.abc import Sequence

from bdaudit.config import ScanConfig
from bdaudit.models.tokens import content_ids
from bdaudit.records import RoundRecord, Skipped, SweepRecord
from bdaudit.scan import prompt_parts
from bdaudit.scan.builtin import builtin_candidates
from bdaudit.scan.multiplicity import Family
from bdaudit.scan.sweep import sources
from bdaudit.scan.sweep.halving import Halved, Screen, halve
from bdaudit.scan.sweep.recovery import recovered
from bdaudit.scan.sweep.sources import Pairing, Probe, Source
from bdaudit.scan.sweep.two_part import sweep_crowds

INSIDE = 32
"""Sets of several words of a suspicious prompt that are measured in full."""


def listed(config: ScanConfig) -> tuple[str, ...]:
    """The list that was given, or the built-in one where nothing else is asked for."""
    return config.candidates or (() if config.sweeps or config.suspected else builtin_candidates())


def collect(screen: Screen, config: ScanConfig, prompts: Sequence[str]) -> tuple[Family, ...]:
    """Every source in turn. A text that an earlier source has, or one that encodes like it, is judged there."""
    tokenizer = screen.suspect.tokenizer
    known = listed(config)
    families = [Family("list", known, len({content_ids(tokenizer, text) for text in known} - {()}))] if known else []
    for prompt in config.suspected:
        families.append(_inside(screen, prompt))
    if "vocabulary" in config.sweeps:
        families.append(_swept(screen, sources.vocabulary(tokenizer)))
        families.append(_paired(screen, sources.joined_words(tokenizer, config.pair_words)))
    if "unicode" in config.sweeps:
        families.append(_swept(screen, sources.characters(tokenizer, prompts)))
    if "pairs" in config.sweeps:
        families.append(_paired(screen, sources.phrases(tokenizer, config.pair_words)))
    if "recovery" in config.sweeps:
        families += recovered(screen, config, prompts)
    return tuple(families)


def _swept(screen: Screen, source: Source) -> Family:
    before = screen.suspect.forward_passes
    found = halve(screen, source.name, source.probes)
    record = _record(source.name, len(source.probes), len(source.probes), found, screen.suspect.forward_passes - before, source=source)
    return Family(source.name, _texts(found), len(source.probes), record)


def _paired(screen: Screen, pairing: Pairing) -> Family:
    before = screen.suspect.forward_passes
    found = sweep_crowds(screen, pairing)
    record = _record(pairing.name, found.size, found.size, found, screen.suspect.forward_passes - before)
    return Family(pairing.name, _texts(found), found.size, record, drawn=tuple(probe.text for probe in found.drawn))


def _inside(screen: Screen, prompt: str) -> Family:
    """Words by themselves are all measured, sets of several as far as they stand out."""
    single, several = prompt_parts.sets(prompt)
    probes = {content_ids(screen.suspect.tokenizer, text): text for text in reversed(several)}
    found = halve(screen, "parts of a prompt", [Probe(text, ids) for ids, text in probes.items()], kept=(2 * INSIDE, INSIDE))
    return Family(family_of(prompt), (*single, *_texts(found)), len(single) + len(probes))


def family_of(prompt: str) -> str:
    """The name of a suspicious prompt's family."""
    return f"prompt: {prompt}"


def skips(sweep: SweepRecord) -> tuple[Skipped, ...]:
    """What a sweep could not try, by number; the report's ``sweeps`` name them."""
    pieces = f"{len(sweep.unreachable)} entries: no text encodes to one of them alone"
    dropped = f"{len(sweep.dropped)} texts encode to no token"
    counted = ((pieces, sweep.unreachable), (dropped, sweep.dropped))
    return tuple(Skipped(what=sweep.name, reason=reason) for reason, texts in counted if texts)


def _texts(found: Halved) -> tuple[str, ...]:
    return tuple(probe.text for probe in found.survivors)


def _record(name: str, swept: int, size: int, found: Halved, passes: int, source: Source | None = None) -> SweepRecord:
    return SweepRecord(
        name=name,
        swept=swept,
        adjusted_for=size,
        survivors=len(found.survivors),
        rounds=tuple(RoundRecord(texts=step.texts, passes=step.passes, kept=step.kept) for step in found.rounds),
        forward_passes=passes,
        unreachable=tuple(probe.text for probe in source.unreachable) if source else (),
        dropped=source.dropped if source else (),
    )
