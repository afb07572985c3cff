"""Blocks handed out: whatever dies, each is answered once, or named."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from bdaudit.errors import BdauditError
from bdaudit.workers.crew import Crew, Lost, unlike
from bdaudit.workers.wire import Answer, packed
from tests.workers.here import HELLO, Doubling, Here


def crew_of(size: int = 2, kill: Callable[[int], bool] = lambda _: False, made: Any = None) -> tuple[Crew, Here]:
    carrier = Here(made or (lambda n: Doubling(replace(HELLO, name=f"worker {n}"))), kill)
    return Crew(carrier, size, HELLO), carrier


def answered(crew: Crew, numbers: list[int]) -> dict[int, Any]:
    return {i: answer and answer.value for i, answer in crew.answers(enumerate(numbers))}


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("n", [0, 1, 3, 200])
def test_every_block_is_answered_once(size: int, n: int) -> None:
    crew, _ = crew_of(size)
    assert answered(crew, list(range(n))) == {i: 2 * i for i in range(n)}
    assert crew.notes == []


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_worker_that_dies_costs_nothing_but_time(seed: int) -> None:
    chance = random.Random(seed)
    crew, carrier = crew_of(3, lambda _: chance.random() < 0.2)
    crew.together = 4
    assert answered(crew, list(range(100))) == {i: 2 * i for i in range(100)}
    lost = [note for note in crew.notes if "was lost (killed)" in note]
    assert len(lost) == len(carrier.stopped) > 0
    assert carrier.started == 3 + len(lost)


def test_a_block_that_kills_every_worker_is_given_up_and_no_other() -> None:
    crew, carrier = crew_of(2)
    found = answered(crew, [1, 2, -1, 3, 4, 5, 6, 7])
    assert found == {0: 2, 1: 4, 2: None, 3: 6, 4: 8, 5: 10, 6: 12, 7: 14}
    assert 4 <= len(carrier.stopped) <= 5


@pytest.mark.parametrize(
    ("blocks", "ends"), [([-1, -1], False), ([-1, -1, -1], True), ([-1, -1, 1, -1], False), ([1, -1, -1, -1, 2], True)]
)
def test_three_blocks_in_a_row_that_cost_their_workers_end_the_run(blocks: list[int], ends: bool) -> None:
    crew, carrier = crew_of(1)
    crew.together = 1
    if not ends:
        assert answered(crew, blocks) == {i: None if block < 0 else 2 * block for i, block in enumerate(blocks)}
        return
    with pytest.raises(BdauditError, match=r"3 blocks in a row cost 4 workers each \(worker \d+ was lost \(killed\)\); .* ask for fewer"):
        answered(crew, blocks)
    assert len(carrier.stopped) == 12


def test_no_worker_left_is_an_error_that_says_what_to_do() -> None:
    crew, carrier = crew_of(2, made=lambda n: Doubling(Answer(error="BdauditError: no such file")))
    with pytest.raises(BdauditError, match=r"no worker is left: .*no such file.*repeat the command"):
        answered(crew, [1, 2])
    assert carrier.started == len(carrier.stopped) == 4


class Dying(Doubling):
    """A worker that is killed while it opens its model."""

    def hello(self) -> bytes:
        raise Lost("killed")


@pytest.mark.parametrize(("size", "died"), [(1, 2), (3, 8), (4, 11), (6, 17)])
def test_all_workers_may_be_killed_while_they_start_twice_and_not_three_times(size: int, died: int) -> None:
    crew, _ = crew_of(size, made=lambda n: (Dying if n < died else Doubling)(HELLO))
    assert answered(crew, [1, 2, 3]) == {0: 2, 1: 4, 2: 6}
    crew, carrier = crew_of(size, made=lambda _: Dying(HELLO))
    with pytest.raises(BdauditError, match=r"no worker is left: a worker did not come up: killed"):
        answered(crew, [1])
    assert carrier.started == 4 * size - 1, "one for each of the 3 · size that were lost but the last"


def test_a_worker_of_another_model_is_refused_by_name_and_the_others_go_on() -> None:
    crew, _ = crew_of(2, made=lambda n: Doubling(replace(HELLO, name=f"worker {n}", digest="other" if n == 0 else "d")))
    assert answered(crew, [1, 2, 3]) == {0: 2, 1: 4, 2: 6}
    assert crew.notes == ["worker 0 was refused: its digest is other, the run's d"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tensors": "x"}, "its tensors is x"), ({"dtype": "torch.float16"}, "its dtype is"), ({"device": "cuda"}, "its device is cuda"),
        ({"added": ("a",)}, "its added is"), ({"versions": {"torch": "2.7"}}, "its torch is 2.7, the run's 2.6"),
        ({"versions": {}}, "its torch is missing"), ({"canary": (0.5, -0.99)}, "by up to 0.01 where 0.002 is allowed"),
        ({"canary": (0.5, -0.9979)}, "by up to 0.0021 where 0.002 is allowed"),
        ({"canary": (0.5,)}, "it measures harmless texts otherwise"), ({"canary": (0.5, -0.9981)}, ""), ({"name": "anybody"}, ""),
    ],
)  # fmt: skip
def test_what_makes_a_worker_another(change: dict[str, Any], said: str) -> None:
    found = unlike(replace(HELLO, **change), HELLO)
    assert (said in found) if said else found == ""


@pytest.mark.parametrize("sent", [b"\x80\x04K\x01.", b"{}", b'[{"value": NaN}]', b"[]", "text", packed([Answer(value=1)] * 2)])
def test_a_worker_that_sends_something_else_is_dropped_and_its_block_given_out_again(sent: Any) -> None:
    class Odd(Doubling):
        def done(self, tasks: bytes) -> bytes:
            odd: bytes = sent
            return odd

    crew, carrier = crew_of(2, made=lambda n: (Odd if n == 0 else Doubling)(replace(HELLO, name=f"worker {n}")))
    found = answered(crew, [1, 2])
    assert found == {0: 2, 1: 4}
    assert any("worker 0 was dropped" in note for note in crew.notes)
    assert len(carrier.stopped) == 1


def test_an_error_that_nobody_declared_is_named_and_its_block_given_out_again() -> None:
    class Broken(Doubling):
        def done(self, tasks: bytes) -> bytes:
            return packed(Answer(error="ValueError: odd"))

    crew, _ = crew_of(2, made=lambda n: (Broken if n == 0 else Doubling)(replace(HELLO, name=f"worker {n}")))
    assert answered(crew, [1, 2]) == {0: 2, 1: 4}
    assert crew.notes == ["worker 0 was dropped: ValueError: odd"]


def test_quick_blocks_are_given_out_together_and_slow_ones_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(float(t) for t in range(10_000))
    monkeypatch.setattr("bdaudit.workers.crew.time.monotonic", lambda: next(clock))
    crew, carrier = crew_of(1)
    answered(crew, list(range(10)))
    assert carrier.given == [b"[0]", b"[1,2]", b"[3,4,5,6]", b"[7,8,9]"], "whatever is given takes a second, and may take two"
    monkeypatch.setattr("bdaudit.workers.crew.WANTED", 0.5)
    crew, carrier = crew_of(1)
    answered(crew, list(range(5)))
    assert len(carrier.given) == 5


def test_its_end_is_theirs() -> None:
    crew, carrier = crew_of(3)
    answered(crew, [1])
    crew.close()
    assert len(carrier.stopped) == 3
    assert crew.alive == 0


def test_no_more_than_64_blocks_are_given_out_together_however_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bdaudit.workers.crew.time.monotonic", lambda: 0.0)
    crew, carrier = crew_of(1)
    answered(crew, list(range(200)))
    assert [1 + tasks.count(b",") for tasks in carrier.given] == [1, 64, 64, 64, 7]


def test_a_worker_has_a_quarter_of_an_hour_to_come_up_where_none_works_and_a_block_has_no_end() -> None:
    crew, carrier = crew_of(1)
    waited: list[float | None] = []
    first = carrier.next

    def following(tickets: Any, seconds: float | None) -> Any:
        waited.append(seconds)
        return first(tickets, seconds)

    carrier.next = following  # type: ignore[method-assign]
    assert answered(crew, [1]) == {0: 2}
    assert waited == [900.0, None]
