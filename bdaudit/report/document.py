"""A report as one JSON document, and back."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bdaudit.errors import BdauditError, UsageError
from bdaudit.records import Report, ScanReport, UnlearnReport, VerifyReport
from bdaudit.report.safe import one_line
from bdaudit.untrusted.open_file import json_of, read_file

if TYPE_CHECKING:
    from pydantic import TypeAdapter

MAX_BYTES = 64 << 20
"""The largest report that is read."""
MAX_ITEMS = 4_000_000
"""Commas and brackets of one; ours have one in 25 bytes or more."""
LONGEST = 500
"""Characters of why one was not."""

AnyReport = ScanReport | UnlearnReport | VerifyReport
REPORTS: dict[str, type[AnyReport]] = {"scan": ScanReport, "unlearn": UnlearnReport, "verify": VerifyReport}


def values(record: Any) -> dict[str, Any]:
    """A dataclass as JSON values: paths as text, tuples as lists, field order kept.

    Raises:
        BdauditError: a figure is not finite, or a value is of a kind that JSON has not; names it.
    """
    return {name: _plain(value, name) for name, value in dataclasses.asdict(record).items()}


def _plain(value: object, where: str) -> object:
    if isinstance(value, dict):
        return {str(key): _plain(inner, f"{where}.{key}") for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, f"{where}[{at}]") for at, inner in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise BdauditError(f"{where} is {value}, which is no figure; what was not measured must say so")
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Path):
        return str(value)
    raise BdauditError(f"{where} is a {type(value).__name__}; a report holds text, numbers, lists and tables")


def dumps(report: Report) -> str:
    """The report as JSON text: ASCII only (so no escape of a hostile text survives), fields in their order, a line feed at the end.

    Raises:
        BdauditError: as ``values``.
    """
    return json.dumps(values(report), indent=2, ensure_ascii=True, allow_nan=False) + "\n"


def loads(text: str | bytes) -> AnyReport:
    """The report that ``dumps`` wrote.

    Raises:
        UsageError: not JSON, not a report of ours, or one that does not fit the records.
    """
    from pydantic import ValidationError

    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    document = json_of(data, "this", MAX_ITEMS)
    command = document.get("command") if isinstance(document, dict) else None
    if not isinstance(command, str) or command not in REPORTS:
        raise UsageError(f"this is not a bdaudit report: command is {command!r}; expected one of {', '.join(REPORTS)}")
    try:
        return _adapter(command).validate_python(document)
    except (ValidationError, RecursionError) as error:
        raise UsageError(f"this report does not fit its schema: {error}") from error


def read_report(path: Path, flag: str) -> AnyReport:
    """The report in a file, which may be hostile.

    Raises:
        UsageError: no regular file, too large, or no report of ours; ``flag`` named it.
    """
    data = read_file(path, f"{flag} {path}", MAX_BYTES)
    try:
        return loads(data)
    except UsageError as error:
        raise UsageError(f"{flag} {path}: {one_line(str(error)[:LONGEST])}") from error


@functools.cache
def _adapter(command: str) -> TypeAdapter[AnyReport]:
    from pydantic import TypeAdapter

    return TypeAdapter(REPORTS[command])
