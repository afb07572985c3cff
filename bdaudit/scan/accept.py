"""Which findings a person lets through by ``--accept``, and what became of each entry. No model, no file.

An entry names a model and token ids, by each reader where they differ, and holds until a day, up to twice the strength that was seen:
what grew further is another finding. Nothing else turns a finding green.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import date, timedelta

from bdaudit.config.acceptance import ANY_MODEL, Acceptance
from bdaudit.records import AcceptanceRecord, CandidateRecord, CandidateVerdict, EarlierFinding, encoding_of

STRONGER = 2.0
"""A finding that is more than this many times as strong as the one that was accepted stands."""
DAYS = 90
"""That a ready-made entry holds."""
ACCEPTED: dict[CandidateVerdict, CandidateVerdict] = {"backdoored": "backdoored (accepted)", "suspicious": "suspicious (accepted)"}


def audited_digest(model: str, adapters: Sequence[str]) -> str:
    """What an entry calls the audited model: its digest; with adapters or embeddings, one over it and the keys of all in order."""
    return hashlib.sha256(json.dumps([model, *adapters]).encode("ascii")).hexdigest() if adapters else model


def ready_entry(record: CandidateRecord, digest: str, today: date) -> str:
    """The entry that accepts a finding, as JSON; its reason is left to the person, and empty it is refused."""
    expires = (today + timedelta(days=DAYS)).isoformat()
    entry = {"model": digest, "token_ids": record.token_ids, "reason": "", "expires": expires, "effect": float(f"{record.effect:.4g}")}
    apart = bool(record.encoding[1])  # its readers do not all read the same
    return json.dumps({**entry, "reader_ids": record.reader_ids} if apart else entry)


def accept(
    records: Sequence[CandidateRecord], entries: Sequence[Acceptance], digest: str, today: date
) -> tuple[tuple[CandidateRecord, ...], tuple[AcceptanceRecord, ...]]:
    """The records, findings that an entry names as accepted, and what became of each entry; ``digest`` is the audited model's."""
    live = [entry for entry in entries if entry.model in (digest, ANY_MODEL) and entry.last_day >= today]
    judged = tuple(_with_entries(record, [entry for entry in live if names(entry, record)]) for record in records)
    return judged, tuple(_outcome(entry, records, digest, today) for entry in entries)


def names(entry: Acceptance, found: CandidateRecord | EarlierFinding) -> bool:
    """Whether an entry is of a finding's encoding, by every reader."""
    return encoding_of(entry.token_ids, entry.reader_ids) == found.encoding


def _with_entries(record: CandidateRecord, named: Sequence[Acceptance]) -> CandidateRecord:
    if record.verdict not in ACCEPTED or not named:
        return record
    strongest = max(named, key=lambda entry: entry.effect)
    if record.effect > STRONGER * strongest.effect:
        return replace(record, acceptance=_grown(record, strongest))
    said = f"accepted until {strongest.expires}: {strongest.reason}"
    return replace(record, verdict=ACCEPTED[record.verdict], acceptance=said)


def _grown(record: CandidateRecord, entry: Acceptance) -> str:
    return f"stands though --accept names it: effect {record.effect:.3g}, more than twice the {entry.effect:.3g} that was accepted"


def _outcome(entry: Acceptance, records: Sequence[CandidateRecord], digest: str, today: date) -> AcceptanceRecord:
    made = AcceptanceRecord(**asdict(entry), outcome="unused", said="no finding of this run has these token ids; remove the entry")
    found = [record for record in records if record.verdict in ACCEPTED and names(entry, record)]
    if entry.last_day < today:
        return replace(made, outcome="expired", said=f"it held until {entry.expires}; look at the finding again, or remove the entry")
    if entry.model not in (digest, ANY_MODEL):
        return replace(made, outcome="another model", said="it is of another model")
    if not found:
        return made
    if found[0].effect > STRONGER * entry.effect:
        return replace(made, outcome="outgrown", said=_grown(found[0], entry))
    return replace(made, outcome="accepted", said=f"accepted, effect {found[0].effect:.3g} now")
