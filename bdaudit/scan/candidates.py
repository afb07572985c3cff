"""The candidates of a run and where each came from: the list, sweeps, and prompts that may hold a trigger."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from bdaudit.config import ScanConfig
from bdaudit.models.tokens import content_ids
from bdaudit.records import Skipped, SweepRecord
from bdaudit.scan import prompt_parts
from bdaudit.scan.builtin import builtin_candidates
from bdaudit.scan.context import ScanContext
from bdaudit.scan.encoded import encoded
from bdaudit.scan.multiplicity import CandidateGroup
from bdaudit.scan.sweep import swept_texts
from bdaudit.scan.sweep.recovery import recover
from bdaudit.scan.sweep.result import SweepResult, SweepSizes
from bdaudit.scan.sweep.single_texts import halve
from bdaudit.scan.sweep.swept_texts import Pairing, Probe, Source
from bdaudit.scan.sweep.two_part import two_part_sweep


def listed(config: ScanConfig) -> tuple[str, ...]:
    """The list that was given, or the built-in one where nothing else is asked for."""
    return config.candidates or (() if config.sweeps or config.suspected else builtin_candidates())


def collect(context: ScanContext, config: ScanConfig, prompts: Sequence[str], sizes: SweepSizes) -> tuple[CandidateGroup, ...]:
    """Every source in turn. A text that an earlier source has, or one that encodes like it, is judged there. Texts of two entries are swept
    where states that were encoded apart can stand together."""
    tokenizer, crowds = context.suspect.tokenizer, context.suspect.text.crowds
    known = listed(config)
    groups = [CandidateGroup("list", known, _distinct(context, known))] if known else []
    groups += [_of_prompt(context, prompt, sizes) for prompt in config.suspected]
    if "vocabulary" in config.sweeps:
        groups += [_single(context, source, sizes) for source in _vocabularies(context)]
        groups += [_two_part(context, swept_texts.joined_words(tokenizer, config.pair_words), sizes)] if crowds else []
    if "unicode" in config.sweeps:
        groups.append(_single(context, swept_texts.characters(tokenizer, prompts), sizes))
    if "pairs" in config.sweeps and crowds:
        groups.append(_two_part(context, swept_texts.phrases(tokenizer, config.pair_words), sizes))
    if "recovery" in config.sweeps:
        groups += recover(context, config, prompts)
    return tuple(groups)


def _vocabularies(context: ScanContext) -> Iterator[Source]:
    """The main reader's entries, then those of each other vocabulary that is read: T5 knows words, and capitals, that CLIP does not."""
    text, seen = context.suspect.text, list[object]()
    yield swept_texts.vocabulary(text.main.tokenizer)
    for name, reader in zip(text.modules, text.readers, strict=True):
        own = reader.tokenizer.get_vocab()
        if not any(reader is one for one in text.alike) and own not in seen:
            seen.append(own)
            yield replace(swept_texts.vocabulary(reader.tokenizer), name=f"vocabulary of {name}")


def _distinct(context: ScanContext, texts: Sequence[str]) -> int:
    """How many of them encode to something, each encoding once."""
    return sum(not each.empty for each in {encoded(context.suspect.text, text) for text in texts})


def _single(context: ScanContext, source: Source, sizes: SweepSizes) -> CandidateGroup:
    return _swept(context, source, lambda: halve(context, source.name, source.probes, sizes.kept, sizes.sample))


def _two_part(context: ScanContext, pairing: Pairing, sizes: SweepSizes) -> CandidateGroup:
    return _swept(context, Source(pairing.name, ()), lambda: two_part_sweep(context, pairing, sizes))


def _swept(context: ScanContext, source: Source, sweep: Callable[[], SweepResult]) -> CandidateGroup:
    """What came through ``sweep``, and its record."""
    before = context.suspect.forward_passes
    result = sweep()
    record = SweepRecord(
        name=source.name,
        swept=result.size,
        adjusted_for=result.size,
        survivors=len(result.survivors),
        rounds=result.rounds,
        forward_passes=context.suspect.forward_passes - before,
        unreachable=_texts(source.unreachable),
        dropped=source.dropped,
    )
    return CandidateGroup(source.name, _texts(result.survivors), result.size, record, drawn=_texts(result.drawn))


def _of_prompt(context: ScanContext, prompt: str, sizes: SweepSizes) -> CandidateGroup:
    """Words by themselves are all measured, sets of several as far as they stand out."""
    single, several = prompt_parts.sets(prompt)
    probes = [Probe(text, ids) for ids, text in {content_ids(context.suspect.tokenizer, text): text for text in reversed(several)}.items()]
    result = halve(context, "parts of a prompt", probes, sizes.kept_of_prompt, sizes.sample)
    return CandidateGroup(prompt_group(prompt), (*single, *_texts(result.survivors)), len(single) + len(probes))


def prompt_group(prompt: str) -> str:
    """The name of a suspicious prompt's group."""
    return f"prompt: {prompt}"


def skips(sweep: SweepRecord) -> tuple[Skipped, ...]:
    """What a sweep could not try, by number; the report's ``sweeps`` name them."""
    pieces = f"{len(sweep.unreachable)} entries: no text encodes to one of them alone"
    dropped = f"{len(sweep.dropped)} texts encode to no token"
    counted = ((pieces, sweep.unreachable), (dropped, sweep.dropped))
    return tuple(Skipped(what=sweep.name, reason=reason) for reason, texts in counted if texts)


def _texts(probes: Sequence[Probe]) -> tuple[str, ...]:
    return tuple(probe.text for probe in probes)
