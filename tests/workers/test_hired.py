"""Crews take turns: the workers of one model end before those of the next start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from bdaudit.workers.crew import Crew
from bdaudit.workers.hired import Turns
from tests.workers.here import HELLO, Doubling, Here


def test_a_crew_stays_until_another_model_has_its_turn() -> None:
    told: list[str] = []

    def crew(name: str) -> Callable[[], AbstractContextManager[Crew | None]]:
        @contextmanager
        def opened() -> Iterator[Crew]:
            told.append(f"{name} comes")
            yield Crew(Here(lambda _: Doubling(HELLO)), 2, HELLO)
            told.append(f"{name} goes")

        return opened

    turns = Turns()
    first = turns.crew("a", crew("a"))
    assert first is not None
    assert turns.crew("a", crew("a")) is first
    first.notes.append("a worker was lost")
    second = turns.crew("b", crew("b"))
    assert second is not first
    assert turns.crew("a", crew("a")) not in (first, second)
    turns.close()
    turns.close()
    assert told == ["a comes", "a goes", "b comes", "b goes", "a comes", "a goes"]
    assert turns.notes == ["a worker was lost"], "of whichever crew"
    assert second is not None
    assert second.notes is turns.notes
