"""How a scan's verdicts and end are told: what stands in a pass's way, what to type next, and the entry that accepts a finding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date

from bdaudit.config import ScanConfig
from bdaudit.errors import ExitCode
from bdaudit.measure.envelope import settings
from bdaudit.models.lora import Adapter
from bdaudit.records import CandidateRecord, Exit
from bdaudit.report.command import (
    adapter_flags,
    context_flags,
    drawing_flags,
    machine_flags,
    opening_flags,
    part_flags,
    trigger_flags,
    typed,
)  # fmt: skip
from bdaudit.scan.accept import audited_digest, ready_entry
from bdaudit.scan.opening import Run
from bdaudit.spelling.points import described

FEW = 3
"""Harmless texts that move a model far beyond all others by chance: on clean models it was none to two."""


def unless_read_otherwise(adapters: Sequence[Adapter], ended: Exit) -> Exit:
    """A pass, whatever the gate, says nothing of what people run where diffusers makes another model of an adapter."""
    otherwise = [adapter.read_otherwise for adapter in adapters if adapter.read_otherwise]
    if ended.code != ExitCode.PASS or not otherwise:
        return ended
    said = f"{ended.reason}; not audited: {otherwise[0]}"
    return Exit.of(ExitCode.INCONCLUSIVE, f"{said}; merge it with the tool that you use, and scan the result")


def unless_tampered(ended: Exit, kinds: Mapping[str, float], texts: Sequence[str]) -> Exit:
    """A pass, whatever the gate, says nothing where harmless texts that it rests on are loud: somebody can have made them so."""
    if ended.code != ExitCode.PASS or not (kinds or len(texts) > FEW):
        return ended
    said = ", ".join(f"{kind} (by {units:.1f} times what sets the loudest of others apart)" for kind, units in kinds.items())
    how = f"of one kind move the model as no other kind does: {said}" if kinds else f"move it as harmless texts do not: {_first(texts)}"
    return Exit.of(
        ExitCode.INCONCLUSIVE,
        f"{ended.reason}, but the null looks tampered with: harmless texts {how}; "
        "all of them may be triggers; look at one of them with unlearn, or leave the model alone",
    )


def _first(texts: Sequence[str]) -> str:
    return ", ".join(map(ascii, texts[: FEW + 1])) + f" and {len(texts) - FEW - 1} more" * (len(texts) > FEW + 1)


def command(config: ScanConfig, text: str) -> str:
    """What to type next: the repair, on the same prompts, of a model that opens with the same leave, the adapters merged in."""
    asked = settings(config)
    found = [*adapter_flags(config.adapters), *trigger_flags([text]), *context_flags(config.contexts)]
    parts = part_flags(config.parts_from, [each for each in config.parts if not each[0]])
    return typed("unlearn", config.model, *found, *drawing_flags(asked), *opening_flags(asked), *parts, *machine_flags(asked))


def reading(twice: Mapping[str, str], text: str) -> str:
    """Which reading of a list's line ``text`` is, where it was read both ways."""
    if text in twice:
        return f"as it stands, though written like {described(twice[text])}"
    literal = next((other for other, meant in twice.items() if meant == text), "")
    return f"the character that {literal!a} is written like" if literal else ""


def with_next(run: Run, record: CandidateRecord, today: date) -> CandidateRecord:
    """A finding with what to type next, and whatever reaches the gate with the entry that would accept it."""
    if record.verdict not in ("backdoored", run.config.fail_on):
        return record
    learnt = any(embedding.token in record.text for embedding in run.embeddings)  # leaving the file out is all that it takes
    repair = command(run.config, record.text) if record.verdict == "backdoored" and not learnt else ""
    return replace(record, command=repair, accept_entry=ready_entry(record, digest_of(run), today))


def digest_of(run: Run) -> str:
    """Of the model, and the adapters and embeddings that were audited."""
    return audited_digest(run.inspection.digest, [*(each.key for each in run.adapters), *(each.key for each in run.embeddings)])
