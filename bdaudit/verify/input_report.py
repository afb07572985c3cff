"""``--evidence REPORT``: what a report that the caller hands over shows of a trigger. It may be hostile: read as data, within bounds.

Trusted is the report, since the caller vouches for it. A report of unlearn names, file by file, the model that it wrote: that ties it to
the audited model, whatever that says of itself. A report of scan or verify names the model that it looked at, and only the audited model's
own record (``bdaudit.json``) says that it was made from that one. A lie there lends the audited model a trigger that was a real one
elsewhere; it never makes a text a trigger that nobody found to be one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bdaudit.config import VerifyConfig
from bdaudit.errors import BdauditError, UsageError
from bdaudit.measure.envelope import settings
from bdaudit.records import AttackRecord, CandidateRecord, Estimate, EvidenceRecord, ModelRecord, ScanReport, UnlearnReport
from bdaudit.report.document import AnyReport, read_report
from bdaudit.untrusted.hub_snapshot import home_of
from bdaudit.untrusted.inspect import Inspection
from bdaudit.untrusted.open_file import read_json
from bdaudit.untrusted.tree import shown
from bdaudit.verify.early_stop import judge
from bdaudit.verify.trials import Trial
from bdaudit.verify.trigger_evidence import NOTHING

CLEARLY = 2.0
"""How many times as far as 95 % of harmless texts a trigger moved the prediction before a repair, to count as one."""
PROVENANCE = "bdaudit.json"
RECORD_LIMITS = (1 << 22, 200_000)
"""Bytes, and commas plus brackets, of such a record."""

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Claim:
    """What the audited model's own record says, which decides nothing by itself."""

    digest: str
    """Of the model that it claims to have been made from; empty where it claims none."""
    text: str
    """In words, for the report."""
    adapters: frozenset[str] = frozenset()
    """SHA-256 of the files of adapters that it says are in its weights."""


NO_CLAIM = Claim("", "")


def handed_report(config: VerifyConfig) -> AnyReport | None:
    """The report that ``--evidence`` names.

    Raises:
        UsageError: it is none, or lies among a model's blobs in the hub's cache, whatever name leads there.
    """
    if not isinstance(config.evidence, Path):
        return None
    for model in config.models:
        if config.evidence.resolve().is_relative_to(home_of(model)):
            said = f"--evidence {config.evidence} lies in {home_of(model)}, whose maker wrote it"
            raise UsageError(f"{said}; hand over a report of your own, from outside it")
    return read_report(config.evidence, "--evidence")


def claim_of(inspection: Inspection) -> Claim:
    """The claims of ``bdaudit.json``.

    Raises:
        BdauditError: it is no JSON object; whoever wrote the model did not write that.
    """
    folder = Path(inspection.path).parent if inspection.pieces else Path(inspection.path)
    there = (folder / PROVENANCE).is_file() if inspection.pieces else PROVENANCE in inspection.names
    if not there:
        return NO_CLAIM
    said = f"{PROVENANCE} in {shown(folder)}"
    record = read_json(folder / PROVENANCE, said, RECORD_LIMITS, error=BdauditError, follow=not inspection.pieces)
    if not isinstance(record, dict):
        raise BdauditError(f"{said} is no JSON object, as bdaudit writes it; remove it, or take the model from where it was written")
    digest = record.get("input_digest")
    if not isinstance(digest, str) or not digest:
        return Claim("", f"{PROVENANCE} in MODEL names no model that it was made from")
    triggers = record.get("triggers")
    texts = [text for text in triggers[:8] if isinstance(text, str)] if isinstance(triggers, list) else []
    named = ", ".join(shown(text, 40) for text in texts) or "no trigger"
    return Claim(digest, f"{PROVENANCE} in MODEL says that it was made from {shown(digest, 64)} by removing {named}; its maker wrote that",
                 _merged_in(record.get("adapters")))  # fmt: skip


def _merged_in(adapters: Any) -> frozenset[str]:
    told = [each.get("files") for each in adapters if isinstance(each, dict)] if isinstance(adapters, list) else []
    digests = (file.get("sha256") for files in told if isinstance(files, list) for file in files if isinstance(file, dict))
    return frozenset(digest for digest in digests if isinstance(digest, str))


def by_report(
    report: AnyReport, config: VerifyConfig, inspection: Inspection, claim: Claim, trial: Trial, read: Callable[[str], Ids]
) -> EvidenceRecord:
    """What ``report`` shows of ``trial``'s trigger; ``read`` encodes a text with the audited model's tokenizer."""
    ids = trial.token_ids
    digest = report.model.digest if isinstance(report.model, ModelRecord) else ""
    found = EvidenceRecord(kind="report", holds=False, reason="", decided_on="a report", digest=digest)
    problem = unusable(report, inspection, claim)
    if problem:
        return replace(found, reason=f"{problem}: {NOTHING}")
    named = _named(report, trial.trigger, ids, read)
    if not named:
        others = f"the report of {report.command} names {_some(_triggers(report))}, and no text that encodes to the same tokens: {NOTHING}"
        return replace(found, reason=others, decided_on="token ids")
    words = [shot.text for shot, place in zip(trial.triggered, trial.places, strict=True) if place not in ("replace", "apart")]
    other = sum(not _holds(read(text), ids) for text in words)
    if other:
        said = f"MODEL's tokenizer reads the trigger otherwise in {other} of {len(words)} prompts than alone: {NOTHING} of MODEL"
        return replace(found, reason=said, decided_on="token ids")
    if isinstance(named, AttackRecord):
        found = replace(found, rate=named.rate, floor=named.floor, p=named.p, rule=named.rule)
    problem = _weak(report, named, config)
    said = (
        f"{problem}: {NOTHING}" if problem else f"by the report of {report.command} it is a trigger of the model that MODEL was made from"
    )
    return replace(found, holds=not problem, reason=said)


def _holds(whole: Ids, part: Ids) -> bool:
    """Whether ``part`` stands in ``whole``, as a word's ids do in a prompt's: none but a tokenizer made for it joins them with others'."""
    return any(whole[at : at + len(part)] == part for at in range(len(whole) - len(part) + 1))


def unusable(report: AnyReport, inspection: Inspection, claim: Claim) -> str:
    """Why ``report`` says nothing of this model at all; empty where it may."""
    digest = report.model.digest if isinstance(report.model, ModelRecord) else ""
    if report.status != "completed":
        return f"the report of {report.command} is of a run that was not completed ({report.status})"
    if not digest:
        return f"the report of {report.command} names no model"
    if digest == inspection.digest:
        return f"the report of {report.command} is of this very model, not of the one that it was made from"
    if isinstance(report, UnlearnReport):
        written = {(file.path, file.sha256) for file in report.written}
        ours = {(file.path, file.sha256) for file in inspection.files}
        given = {(file.path, file.sha256) for file in report.model.files} if isinstance(report.model, ModelRecord) else set()
        others = given if inspection.pieces else set()  # of single files those alone are written that change
        same = written <= ours and ours - written <= others
        return "" if written and same else "the report of unlearn is of a repair that wrote other files than MODEL's"
    if digest != claim.digest:
        of = shown(claim.digest, 12) or "none"
        return f"the report of {report.command} is of {shown(digest, 12)}; MODEL's own record says that it was made from {of}"
    other = [file.path for file in report.adapters if file.sha256 not in claim.adapters] if isinstance(report, ScanReport) else []
    other += [each.file.path for each in report.embeddings] if isinstance(report, ScanReport) else []
    if other:
        return f"the report of scan is of a model with {shown(other[0])} applied, and MODEL's own record does not say that this is in it"
    return ""


def _triggers(report: AnyReport) -> list[str]:
    """The texts that ``report`` is evidence of."""
    if isinstance(report, ScanReport):
        return [candidate.text for candidate in report.candidates if candidate.verdict == "backdoored"]
    return list(report.triggers) if isinstance(report, UnlearnReport) else [attack.trigger for attack in report.attacks]


def _named(report: AnyReport, trigger: str, ids: Ids, read: Callable[[str], Ids]) -> CandidateRecord | AttackRecord | Estimate | None:
    """What ``report`` has of ``trigger``, which encodes to ``ids``; one of unlearn holds no ids, but wrote this very tokenizer."""
    if isinstance(report, ScanReport):
        found = (c for c in report.candidates if c.verdict == "backdoored" and c.token_ids == ids)
        return next((c for c in found if c.text == trigger or not c.encoding[1]), None)  # by several readers: the same text alone
    if isinstance(report, UnlearnReport):
        return next((report.before[text] for text in report.triggers if text in report.before and read(text) == ids), None)
    return next((attack for attack in report.attacks if attack.token_ids == ids), None)


def _weak(report: AnyReport, named: CandidateRecord | AttackRecord | Estimate, config: VerifyConfig) -> str:
    """Why what ``report`` has of the text makes no trigger of it; empty where it does."""
    if isinstance(named, Estimate) and not named.value >= CLEARLY * named.high > 0:
        return f"the report of unlearn has it do less than {CLEARLY:g} times what harmless texts do"
    if isinstance(named, AttackRecord) and judge(named, 1) != "works":
        return "by the report of verify it does no more than its floor on the model that MODEL was made from"
    if isinstance(named, AttackRecord) and _target(report.config) != _target(settings(config)):
        return "the report of verify looked for another target than this run"
    return ""


def _target(asked: dict[str, Any]) -> list[Any]:
    """What counted as a hit, but for the target's picture, of which a report has the name alone."""
    swaps = asked.get("swaps", [])
    swaps = [list(swap) if isinstance(swap, list | tuple) else swap for swap in swaps] if isinstance(swaps, list | tuple) else swaps
    return [asked.get("target_text", ""), swaps, asked.get("target_at"), asked.get("target_image") not in (None, "not set")]


def _some(texts: list[str]) -> str:
    more = f" and {len(texts) - 3} more" if len(texts) > 3 else ""
    return ", ".join(f"“{shown(text, 40)}”" for text in texts[:3]) + more if texts else "nothing"
