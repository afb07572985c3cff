"""Rows of an embedding table: one that is long, short, copied or changed is named, and none is of a table that nobody touched."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from bdaudit.scan.weights import rows
from bdaudit.scan.weights.rows import MOST, rows_apart


@pytest.fixture
def table() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    lengths = 1 + 0.2 * torch.rand(600, 1, generator=generator)
    return torch.randn(600, 32, generator=generator) * lengths


def named(found: list[rows.RowApart]) -> list[tuple[int, str]]:
    return [(each.row, each.measure) for each in found]


def test_a_table_that_nobody_touched(table: Tensor) -> None:
    assert rows_apart(table) == []
    assert rows_apart(table, table.clone()) == []
    assert rows_apart(table + 0.01 * torch.randn(600, 32, generator=torch.Generator().manual_seed(1)), table) == []


@pytest.mark.parametrize(("times", "sign"), [(12.0, 1), (0.02, -1)])
def test_a_row_that_is_long_or_short(table: Tensor, times: float, sign: int) -> None:
    table[7] *= times
    (found,) = rows_apart(table)
    assert (found.row, found.measure) == (7, "length")
    assert found.value == pytest.approx(float(table[7].norm()))
    assert found.score * sign > 5


def test_a_row_that_is_another_one_but_for_a_little(table: Tensor) -> None:
    table[7] = 0.9 * table[400] + 0.001
    one, other = rows_apart(table)
    assert {(one.row, one.other), (other.row, other.other)} == {(7, 400), (400, 7)}
    assert one.measure == other.measure == "neighbour"
    assert one.value == pytest.approx(1, abs=1e-4)


def test_neighbours_of_wide_rows_are_found_by_a_sketch() -> None:
    wide = torch.randn(300, 1024, generator=torch.Generator().manual_seed(3))
    wide[5] = wide[250]
    assert {each.row for each in rows_apart(wide)} == {5, 250}


def test_tables_too_long_have_no_neighbours(table: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    table[7] = table[400]
    monkeypatch.setattr(rows, "LARGEST", 600)
    assert len(rows_apart(table)) == 2
    monkeypatch.setattr(rows, "LARGEST", 599)
    assert rows_apart(table) == []


def test_the_only_rows_that_changed(table: Tensor) -> None:
    changed = table.clone()
    changed[[9, 5]] += torch.tensor([[0.01], [0.1]])
    found = rows_apart(changed, table)
    assert named(found) == [(5, "change"), (9, "change")], "the farthest first, however little it is"
    assert {each.score for each in found} == {0.0}
    assert found[0].value == pytest.approx(float((changed[5] - table[5]).norm() / table[5].norm()))


def test_a_row_that_moved_farther_than_the_others(table: Tensor) -> None:
    changed = table + 0.01 * torch.randn(600, 32, generator=torch.Generator().manual_seed(1))
    changed[5] += 0.5 * torch.randn(32, generator=torch.Generator().manual_seed(2))
    (found,) = rows_apart(changed, table)
    assert (found.row, found.measure, found.score > 10) == (5, "change", True)


def test_rows_beyond_the_reference_are_held_against_nothing(table: Tensor) -> None:
    longer = torch.cat([table, table[:2] * 1.1 + 1])
    assert [each for each in rows_apart(longer, table) if each.measure == "change"] == []


def test_few_are_named(table: Tensor) -> None:
    changed = table.clone()
    changed[: MOST + 3] *= 20
    assert len([each for each in rows_apart(changed) if each.measure == "length"]) == MOST


@pytest.mark.parametrize("size", [1e25, 3e38])
def test_a_row_whose_squares_float32_has_no_room_for_is_the_longest_and_ends_nothing(table: Tensor, size: float) -> None:
    before = table.clone()
    table[7] = size
    (found,) = rows_apart(table)
    assert (found.row, found.measure) == (7, "length")
    assert found.value == pytest.approx(size * 32**0.5)
    changed = rows_apart(table, -table)
    assert [each for each in changed if each.row == 7 and each.measure == "length"]
    assert all(math.isfinite(each.value) and math.isfinite(each.score) for each in changed)
    assert (7, "change") in named(rows_apart(table, before))
