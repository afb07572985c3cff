"""The triggers that a scan's report names. The report may be hostile: it is read as data, within bounds, and checked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bdaudit.errors import InconclusiveError, UsageError
from bdaudit.models.lora import Adapter
from bdaudit.records import ModelRecord, ScanReport
from bdaudit.records.scan import Encoding
from bdaudit.report.document import read_report
from bdaudit.untrusted.tree import shown

MAX_CHARACTERS = 2000
"""Of one trigger; a prompt has at most some hundreds."""


def triggers_of(path: Path, digest: str) -> tuple[str, ...]:
    """What the scan called backdoored, each encoding once, strongest first; ``digest`` is the model's that is repaired.

    Raises:
        UsageError: no scan report of ours, too large, of another model, or with a trigger that cannot be one.
        InconclusiveError: it calls nothing backdoored.
    """
    report = _read(path)
    if not isinstance(report.model, ModelRecord) or report.model.digest != digest:
        of = report.model.digest[:12] if isinstance(report.model, ModelRecord) else "no model"
        raise UsageError(f"--from-report {path} is of {shown(of)}, this model is {digest[:12]}; scan this model, or name the other one")
    return _named(report, path)


def named_in(path: Path) -> tuple[str, ...]:
    """The same of whatever model; raises as ``triggers_of``."""
    return _named(_read(path), path)


def grader_of(path: Any) -> str:
    """The CLIP that the scan of a report asked, for the run that grades the repair; empty where it asked none, or there is no report."""
    try:
        clip = _read(Path(path)).config.get("clip") if isinstance(path, str) and path != "not set" else ""
    except UsageError:  # the file went away while the repair was made
        return ""
    return clip if isinstance(clip, str) and clip != "not set" else ""


def _named(report: ScanReport, path: Path) -> tuple[str, ...]:
    found = sorted((c for c in report.candidates if c.verdict == "backdoored"), key=lambda c: c.rank)
    if not found:
        raise InconclusiveError(f"--from-report {path} calls none of {len(report.candidates)} candidates backdoored; nothing to unlearn")
    texts: dict[Encoding, str] = {}
    for candidate in found:
        texts.setdefault(candidate.encoding, candidate.text)
        if not 0 < len(candidate.text) <= MAX_CHARACTERS or any("\ud800" <= c <= "\udfff" for c in candidate.text):
            raise UsageError(f"--from-report {path}: {candidate.text[:40]!a} cannot be a trigger")
    return tuple(texts.values())


def check_adapters(path: Path, adapters: Sequence[Adapter]) -> None:
    """Raises ``UsageError`` where the scan had other adapters than these applied: what it found may come with them."""
    report = _read(path)
    if report.embeddings:
        said = f"--from-report {path} is of the model with {shown(report.embeddings[0].file.path)} in its vocabulary"
        raise UsageError(f"{said}, which is no part of MODEL; leave that file out, or scan without --embedding")
    scanned = [file.sha256 for file in report.adapters], _scales(report)
    given = [file.sha256 for adapter in adapters for file in adapter.files], [adapter.scale for adapter in adapters]
    if scanned != given:
        of = ", ".join(shown(file.path) for file in report.adapters) or "no adapter"
        raise UsageError(f"--from-report {path} is of the model with {of} applied; name the same with --lora, or scan this anew")


def _scales(report: ScanReport) -> list[Any]:
    listed = report.config.get("adapters")
    return [pair[-1] if isinstance(pair, list) and pair else None for pair in (listed if isinstance(listed, list) else ())]


def _read(path: Path) -> ScanReport:
    report = read_report(path, "--from-report")
    if not isinstance(report, ScanReport):
        raise UsageError(f"--from-report {path} is the report of {report.command}; expected one of scan, as JSON")
    return report
