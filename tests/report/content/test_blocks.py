"""A table tells each reason once, and is none without rows."""

from __future__ import annotations

import pytest

from bdaudit.records import Estimate, NotMeasured
from bdaudit.report.content.blocks import Below, Cell, Column, Figure, tables

ONE, OTHER = NotMeasured(reason="no grader"), NotMeasured(reason="no\nreference")


def test_reasons_are_numbered_as_they_come_and_told_once() -> None:
    (table,) = tables("T", ["a", "b"], [[ONE, OTHER], [OTHER, ONE], [Below("no grader"), "x"]])
    assert [[cell.lines[0] for cell in row] for row in table.rows] == [
        ["not measured [1]", "not measured [2]"], ["not measured [2]", "not measured [1]"], ["[1]", "x"],
    ]  # fmt: skip
    assert table.notes == ("[1] no grader", "[2] no reference")


@pytest.mark.parametrize(
    ("value", "lines"),
    [
        ("x", ("x",)), (("x", "y"), ("x", "y")), (Cell(("x",), "bad"), ("x",)),
        (Estimate(value=0.5, low=0.25, high=1, n=9, method="t 95 %"), ("0.5 (0.25 to 1, n = 9)",)),
    ],
)  # fmt: skip
def test_a_cell_is_made_of_any_figure(value: Figure, lines: tuple[str, ...]) -> None:
    (table,) = tables("T", [Column("a")], [[value]])
    assert table.rows[0][0].lines == lines
    assert table.notes == ()


def test_no_rows_are_no_table() -> None:
    assert tables("T", ["a"], []) == []
