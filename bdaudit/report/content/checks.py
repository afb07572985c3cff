"""The table of checks, alike for a repair and for a verification."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bdaudit.records import Check, NotMeasured
from bdaudit.report.content.blocks import TONES, Below, Cell, Figure, Table, tables
from bdaudit.report.safe import one_line, visible


def checks(records: Sequence[Check]) -> list[Table]:
    """One row a check; a reason that several share is told once, below, and the column of reasons is there where one is."""
    times = Counter(check.reason for check in records if check.reason)
    rows = [_row(check, times[check.reason] > 1) for check in records]
    columns = ["check", "status", "value", "bound", *["reason"] * bool(times)]
    return tables("Checks", columns, [row[: len(columns)] for row in rows])


def _row(check: Check, shared: bool) -> list[Figure]:
    """``not measured`` alone where the check's own reason says why."""
    value = "not measured" if isinstance(check.value, NotMeasured) and check.reason else check.value
    why = Below(check.reason) if shared else one_line(check.reason)
    return [visible(check.name), Cell((check.status,), TONES[check.status]), value, visible(check.bound), why]
