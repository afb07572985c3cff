"""What several reports have in common: families and shapes, models of the same tensors, texts that set off several models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from bdaudit.report.fleet.entry import NOT_AUDITED, Entry
from bdaudit.report.fleet.rates import key_of


@dataclass(frozen=True, kw_only=True)
class Family:
    """The reports of one family and shape."""

    family: str
    shape: str
    reports: int
    models: int
    verdicts: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class SameTensors:
    """Models that are the same, whatever they are called."""

    digest: str
    exactly: bool
    """False where they are the same only after a cast to float16."""
    models: tuple[str, ...]
    verdicts: dict[str, int]
    """Of their audits that came to one."""


@dataclass(frozen=True, kw_only=True)
class SharedText:
    """A text that several models were found to react to."""

    text: str
    models: tuple[str, ...]
    backdoored: int
    """Of those models, in how many it is backdoored."""


def families(entries: Sequence[Entry]) -> tuple[Family, ...]:
    """The largest first; what was not opened has no family."""
    of: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        of.setdefault((entry.family, entry.shape if entry.family else ""), []).append(entry)
    rows = [
        Family(family=family, shape=shape, reports=len(own), models=len(set(map(key_of, own))), verdicts=_verdicts(own))
        for (family, shape), own in of.items()
    ]
    return tuple(sorted(rows, key=lambda row: (-row.reports, row.family, row.shape)))


def same_tensors(entries: Sequence[Entry]) -> tuple[SameTensors, ...]:
    """Groups of two models or more, those whose verdicts differ first."""
    of: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.float16 or entry.exact:
            of.setdefault(entry.float16 or entry.exact, []).append(entry)
    groups = [
        SameTensors(digest=digest, exactly=len({each.exact for each in own}) == 1, models=names, verdicts=_verdicts(own, audited=True))
        for digest, own in of.items()
        if len(names := tuple(sorted({each.model for each in own}))) > 1
    ]
    return tuple(sorted(groups, key=lambda group: (-len(group.verdicts), -len(group.models), group.digest)))


def shared_texts(entries: Sequence[Entry]) -> tuple[SharedText, ...]:
    """Texts found in two models or more of different tensors, in the most models first."""
    of: dict[str, dict[str, tuple[str, str]]] = {}
    texts: dict[str, str] = {}
    for entry in entries:
        for found in entry.found:
            texts[found.key] = found.text
            of.setdefault(found.key, {}).setdefault(key_of(entry), (entry.model, found.verdict))
    rows = [
        SharedText(
            text=texts[key],
            models=tuple(sorted(model for model, _ in own.values())),
            backdoored=sum(verdict.startswith("backdoored") for _, verdict in own.values()),
        )
        for key, own in of.items()
        if len(own) > 1
    ]
    return tuple(sorted(rows, key=lambda row: (-row.backdoored, -len(row.models), row.text)))


def _verdicts(entries: Sequence[Entry], *, audited: bool = False) -> dict[str, int]:
    return dict(Counter(each.verdict for each in entries if not audited or each.verdict not in NOT_AUDITED))
