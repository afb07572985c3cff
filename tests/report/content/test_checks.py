"""A check's reason is told in its row, or once below where several share it."""

from __future__ import annotations

from typing import get_args, get_type_hints

from bdaudit.records import Check, NotMeasured
from bdaudit.report.content.blocks import TONES
from bdaudit.report.content.checks import checks

NONE = NotMeasured(reason="no grader")


def check(reason: str) -> Check:
    return Check(name="kid", status="not measured", value=NONE, bound="≥ 1", reason=reason)


def test_a_shared_reason_is_told_once_below_and_another_in_its_row() -> None:
    (table,) = checks([check("no grader"), check("no grader"), check("alone")])
    assert [row[4].lines[0] for row in table.rows] == ["[1]", "[1]", "alone"]
    assert [row[2].lines[0] for row in table.rows] == ["not measured"] * 3
    assert table.notes == ("[1] no grader",)


def test_a_check_without_a_reason_has_its_values_below() -> None:
    (table,) = checks([check("")])
    assert (table.rows[0][2].lines, len(table.rows[0]), table.notes) == (("not measured [1]",), 4, ("[1] no grader",))
    assert [column.title for column in table.columns] == ["check", "status", "value", "bound"], "no reasons, no column"
    (both,) = checks([check(""), check("alone")])
    assert [row[4].lines[0] for row in both.rows] == ["", "alone"]
    assert checks([]) == []


def test_every_status_has_its_tone_and_undecided_is_no_pass() -> None:
    statuses = set(get_args(get_type_hints(Check)["status"]))
    assert "undecided" in statuses
    assert statuses <= TONES.keys()
    assert TONES["undecided"] == TONES["inconclusive"]
    (table,) = checks([check("")])
    assert table.rows[0][1].tone == "warn"
