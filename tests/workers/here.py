"""Workers in this process: they take and give bytes as Ray's do, and die when they are told to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest

from bdaudit.workers.crew import Lost
from bdaudit.workers.member import Member
from bdaudit.workers.wire import Answer, Hello, packed, unpacked

HELLO = Hello(
    name="own", digest="d", tensors="t", added=(), versions={"torch": "2.6"}, device="cpu", dtype="torch.float32",
    canary=(0.5, -1.0),
)  # fmt: skip


class Doubling:
    """A worker that doubles numbers; a task of −1 kills it."""

    def __init__(self, hello: Hello | Answer) -> None:
        self._hello = hello

    def hello(self) -> bytes:
        return packed(self._hello)

    def done(self, tasks: bytes) -> bytes:
        numbers = unpacked(tasks, list[int], "the run")
        if -1 in numbers:
            raise Lost("killed")
        return packed([Answer(value=2 * number, passes=1) for number in numbers])


@dataclass
class Here:
    """A carrier; ``made`` makes the n-th worker, ``kill`` is asked before each of a worker's answers whether it dies."""

    made: Callable[[int], Any]
    kill: Callable[[int], bool] = lambda _: False
    setup: bytes = b""
    started: int = 0
    given: list[bytes] = field(default_factory=list)
    stopped: list[Any] = field(default_factory=list)
    _tickets: Any = field(default_factory=lambda: count())
    _work: dict[int, Callable[[], bytes]] = field(default_factory=dict)

    def start(self) -> Any:
        self.started += 1
        return self.made(self.started - 1)

    def greeted(self, worker: Any) -> int:
        return self._ticket(worker.hello)

    def give(self, worker: Any, tasks: bytes) -> int:
        self.given.append(tasks)
        number = len(self.given)

        def done() -> bytes:
            if self.kill(number):
                raise Lost("killed")
            data: bytes = worker.done(tasks)
            return data

        return self._ticket(done)

    def _ticket(self, work: Callable[[], bytes]) -> int:
        ticket: int = next(self._tickets)
        self._work[ticket] = work
        return ticket

    def next(self, tickets: Sequence[int], seconds: float | None) -> tuple[int, Callable[[], bytes]]:
        """The first that was handed out."""
        return min(tickets), self._work.pop(min(tickets))

    def stop(self, worker: Any) -> None:
        self.stopped.append(worker)


def in_process(patch: pytest.MonkeyPatch) -> Here:
    """Real workers that open the model anew, in this process, wherever a run asks for Ray's."""
    carrier = Here(lambda _: None)
    carrier.made = lambda n: members(carrier.setup)(n)

    @contextmanager
    def started(workers: int | None, *, gpu: bool) -> Iterator[tuple[Here, int]]:
        yield carrier, workers or 2

    patch.setattr("bdaudit.workers.hired.started", started)
    patch.setattr("bdaudit.workers.member.forget", lambda: None)
    return carrier


def members(setup: bytes) -> Callable[[int], Any]:
    """Real workers, in this process."""
    return lambda _: Member(setup)
