"""What a crew makes of blocks: answers of their kind, whoever failed told, and how fast it goes."""

from __future__ import annotations

import pytest

from bdaudit.errors import BdauditError, InconclusiveError
from bdaudit.workers.blocks import Pace, answered, checked
from bdaudit.workers.crew import Crew
from tests.workers.here import HELLO, Doubling, Here


def crew() -> Crew:
    return Crew(Here(lambda _: Doubling(HELLO)), 2, HELLO)


def test_each_answer_comes_with_its_number_and_passes() -> None:
    assert sorted(answered(crew(), enumerate([5, 6, 7]), int, str)) == [(0, 10, 1), (1, 12, 1), (2, 14, 1)]


def test_an_answer_of_another_kind_is_told() -> None:
    with pytest.raises(BdauditError, match="a worker sent what does not fit"):
        list(answered(crew(), enumerate([5]), list[int], str))


def test_a_block_that_costs_every_worker_is_named_after_all_others() -> None:
    found = answered(crew(), enumerate([1, -1, 2]), int, lambda number: f"block {number}")
    assert {next(found)[0], next(found)[0]} == {0, 2}
    with pytest.raises(InconclusiveError, match=r"1 block cost every worker .* skipped: 'block 1'"):
        next(found)


def test_what_cannot_have_come_of_a_block_is_the_workers_fault() -> None:
    assert checked(lambda: 3) == 3
    with pytest.raises(BdauditError, match=r"cannot have come of its block \(invalid literal"):
        checked(lambda: int("x"))


def test_the_pace_is_that_of_the_crew_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 14.0, 15.0])
    monkeypatch.setattr("bdaudit.workers.blocks.time.monotonic", lambda: next(clock))
    told: list[tuple[str, int, int]] = []
    of = crew()
    of.names = {1: "a", 2: "b"}
    pace = Pace(of, lambda *said: told.append(said), "drawing", "pictures", 40, 10)
    pace.at(18)
    assert told == [("drawing · 2 pictures a second · 2 workers", 18, 40)]
    assert pace.done == 18
    del of.names[2]
    pace.at(20)
    assert told[1][0].endswith(" · 1 worker")
