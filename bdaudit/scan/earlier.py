"""What earlier scans of the same model found: a finding stands however often a job is run again, and no run is the last word alone.

``--keep DIR`` holds one file a run that found something, named by the model's digest and by its content, so that two runs never write one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path

from pydantic import TypeAdapter

from bdaudit.config.acceptance import ANY_MODEL, Acceptance
from bdaudit.errors import BdauditError, ExitCode, UsageError
from bdaudit.records import CandidateRecord, EarlierFinding, Exit
from bdaudit.records.scan import Encoding
from bdaudit.scan.accept import STRONGER, names
from bdaudit.targets import write_whole
from bdaudit.untrusted.open_file import read_json

FOLDER = "found"
LIMITS = (1 << 22, 1 << 18)
"""Bytes, and commas plus brackets, of one run's findings."""
MOST = 1000
"""Runs of one model that are read."""
_FINDINGS = TypeAdapter(tuple[EarlierFinding, ...])


def remember(keep: Path, digest: str, seed: int, records: Sequence[CandidateRecord]) -> None:
    """Keep what this run found of the model with ``digest``; nothing where it found nothing.

    Raises:
        BdauditError: the folder cannot be written.
    """
    found = [_finding(record, seed) for record in records if record.verdict.startswith("backdoored") and not record.same_as]
    if not found:
        return
    data = json.dumps([asdict(finding) for finding in found], allow_nan=False, sort_keys=True).encode("ascii")
    path = keep / FOLDER / f"{digest}-{hashlib.sha256(data).hexdigest()[:16]}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
    except OSError as error:
        raise BdauditError(f"--keep {keep}: cannot write {path.name}: {error}") from error


def _finding(record: CandidateRecord, seed: int) -> EarlierFinding:
    return EarlierFinding(
        text=record.text, token_ids=record.token_ids, reader_ids=record.reader_ids,
        effect=record.effect, p_adjusted=record.p_adjusted, seed=seed,
    )  # fmt: skip


def found_earlier(keep: Path, digest: str, records: Sequence[CandidateRecord]) -> tuple[EarlierFinding, ...]:
    """What earlier runs found of the model and this one did not, each text once, the strongest first.

    Raises:
        UsageError: a file there is none of ours.
    """
    again = {record.encoding for record in records if record.verdict.startswith("backdoored")}
    strongest: dict[Encoding, EarlierFinding] = {}
    for path in sorted((keep / FOLDER).glob(f"{digest}-*.json"))[:MOST]:
        for finding in _read(path):
            held = strongest.get(finding.encoding)
            if finding.encoding not in again and (held is None or finding.effect > held.effect):
                strongest[finding.encoding] = finding
    return tuple(sorted(strongest.values(), key=lambda finding: -finding.effect))


def _read(path: Path) -> tuple[EarlierFinding, ...]:
    said = f"--keep {path}"
    value = read_json(path, said, LIMITS, error=UsageError, follow=False)
    try:
        return _FINDINGS.validate_python(value)
    except ValueError as error:
        raise UsageError(f"{said} holds no findings of a scan; remove it, or name another folder") from error


def standing(earlier: Sequence[EarlierFinding], entries: Sequence[Acceptance], digest: str, today: date) -> tuple[EarlierFinding, ...]:
    """Those that no entry of ``--accept`` lets through."""
    live = [entry for entry in entries if entry.model in (digest, ANY_MODEL) and entry.last_day >= today]
    return tuple(
        finding for finding in earlier if not any(names(entry, finding) and finding.effect <= STRONGER * entry.effect for entry in live)
    )


def joined_with(ended: Exit, stands: Sequence[EarlierFinding], gate: str) -> Exit:
    """How the scan ends: what an earlier run found counts as this one's own findings do."""
    if not stands:
        return ended
    seeds = ", ".join(str(seed) for seed in sorted({finding.seed for finding in stands}))
    said = f"{ended.reason}; {len(stands)} more found by earlier runs of this model (seed {seeds}), which stand"
    passes = gate == "never" or ended.code not in (ExitCode.PASS, ExitCode.INCONCLUSIVE)
    return Exit.of(ExitCode(ended.code) if passes else ExitCode.FINDING, said)
