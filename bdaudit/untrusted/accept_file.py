"""The file of ``--accept``: a JSON list of entries, each with every key and no other, but for what several readers read."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from bdaudit.config import Acceptance
from bdaudit.errors import UsageError
from bdaudit.records import encoding_of
from bdaudit.records.scan import Encoding
from bdaudit.untrusted.open_file import read_json
from bdaudit.untrusted.tree import shown

LIMITS = (1 << 20, 50_000)
"""Bytes, and commas plus brackets."""
BY_READER = "reader_ids"
KEYS = tuple(field.name for field in fields(Acceptance) if field.name != BY_READER)
"""Of every entry; the ids by reader may stand beside them."""


def read_acceptances(path: Path, said: str) -> tuple[Acceptance, ...]:
    """Every entry in ``path``; ``said`` is what messages call the file.

    Raises:
        UsageError: no such JSON, an entry with a key too many or too few, a value that is none, or the same entry twice.
    """
    document = read_json(path, said, LIMITS)
    if not isinstance(document, list):
        raise UsageError(f"{said}: expected a list of entries; got {type(document).__name__}")
    entries: dict[tuple[str, Encoding], Acceptance] = {}
    for number, each in enumerate(document, 1):
        try:
            entry = _entry(each)
            if entries.setdefault((entry.model, encoding_of(entry.token_ids, entry.reader_ids)), entry) is not entry:
                raise UsageError("an entry before it has the same model and token ids; keep one")
        except UsageError as error:
            raise UsageError(f"{said}, entry {number}: {error}") from error
    return tuple(entries.values())


def _entry(each: object) -> Acceptance:
    if not isinstance(each, dict) or set(each) - {BY_READER} != set(KEYS):
        got = ", ".join(shown(key, 40) for key in each) or "no key" if isinstance(each, dict) else type(each).__name__
        raise UsageError(f"got {shown(got)}; expected a table with {', '.join(KEYS)}, and nothing else")
    for key in ("model", "reason", "expires"):
        if not isinstance(each[key], str):
            raise UsageError(f"{key} is {shown(each[key], 40)}; expected text")
    ids, read = _ids(each["token_ids"], "token_ids"), each.get(BY_READER, {})
    if not isinstance(read, dict):
        raise UsageError(f"{BY_READER} is {shown(read, 40)}; expected a table of lists of whole numbers")
    by_reader = {name: _ids(value, f"{BY_READER} of {shown(name, 40)}") for name, value in read.items()}
    return Acceptance(**each | {"token_ids": ids, BY_READER: by_reader, "effect": _effect(each["effect"])})


def _ids(value: Any, called: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(_is_number(token, int) for token in value):
        raise UsageError(f"{called} is {shown(value, 40)}; expected a list of whole numbers")
    return tuple(value)


def _effect(value: Any) -> float:
    try:
        if _is_number(value, int | float):
            return float(value)
    except OverflowError:  # an integer of more than 308 digits
        pass
    raise UsageError(f"effect is {shown(value, 40)}; expected a finite number")


def _is_number(value: object, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
