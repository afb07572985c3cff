"""Handing blocks out to workers, whoever carries them: the run keeps the state, and a worker that is lost costs its block alone.

A block that was in the hands of a worker when it died is given out again by itself; one that has by itself cost ``MOST_DEATHS`` workers is
named and given up. A worker that is lost is replaced; where none can be, and none is left, the run ends and what was measured stays. So it
does where one block after the other costs its workers: the fault is no block's then.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

from bdaudit.errors import BdauditError
from bdaudit.workers.wire import Answer, Hello, Message, fitted, packed, unpacked

MOST_DEATHS = 4
"""Workers that one block may cost by itself."""
MOST_GIVEN_UP = 3
"""Blocks in a row that may be given up."""
MOST_FAILED = 3
"""Workers in a row that say why they do not come up before no more are started; of those that die while they start, so many times all."""
WANTED = 2.0
"""Seconds that what a worker is given should take, so that handing it out costs nothing beside it."""
LONGEST_START = 900.0
"""Seconds in which a worker must come up where none is there."""
MOST_TOGETHER = 64
"""Blocks that a worker is given at once, where a verb does not say otherwise."""
TOLERANCE = {"torch.float32": 2e-3, "torch.bfloat16": 0.1, "torch.float16": 0.05}
"""How far a worker's canary figures, logarithms of ratios, may lie from the run's own."""


class Lost(Exception):  # noqa: N818
    """A worker died with what it had in its hands."""


class Carrier(Protocol):
    """Who starts workers and carries bytes to them and back."""

    def start(self) -> Any:
        """A new worker, which is opening its model."""

    def give(self, worker: Any, tasks: bytes) -> Any:
        """Hand tasks to a worker; a ticket for what comes back."""

    def greeted(self, worker: Any) -> Any:
        """A ticket for what a new worker says of itself."""

    def next(self, tickets: Sequence[Any], seconds: float | None) -> tuple[Any, Callable[[], bytes]]:
        """The first of the tickets that is done, and a function for its bytes, which raises ``Lost``.

        Raises:
            BdauditError: none is within that many seconds.
        """

    def stop(self, worker: Any) -> None:
        """End a worker."""


@dataclass
class _Task:
    number: int
    content: Any
    deaths: int = 0


@dataclass
class _Given:
    worker: Any
    tasks: list[_Task]
    since: float


@dataclass
class Crew:
    """The workers of one run."""

    carrier: Carrier
    size: int
    own: Hello
    """What the run says of itself: whoever says otherwise is none of the crew."""
    together: int = MOST_TOGETHER
    """Blocks that a worker is given at once, at most."""
    notes: list[str] = field(default_factory=list)
    """Who was dropped or lost, and why."""
    names: dict[Any, str] = field(default_factory=dict)
    """Workers that are there."""
    _coming: dict[Any, Any] = field(default_factory=dict)
    """Ticket → worker that has not said anything yet."""
    _failed: int = 0
    """Workers in a row that did not come up; one that said why counts as many as ``size``, since what ends one may end all at once."""
    _given_up: int = 0
    """Blocks in a row that were given up."""
    _seconds: float = WANTED
    """That a block took lately."""

    def start(self) -> None:
        """Start workers up to ``size``."""
        while len(self.names) + len(self._coming) < self.size and self._failed < MOST_FAILED * self.size:
            worker = self.carrier.start()
            self._coming[self.carrier.greeted(worker)] = worker

    @property
    def alive(self) -> int:
        """Workers that are there."""
        return len(self.names)

    def answers(self, contents: Iterable[tuple[int, Any]]) -> Iterator[tuple[int, Answer | None]]:
        """Number and answer of each block, in the order that they come in; None of one that was given up.

        Raises:
            BdauditError: no worker is left, or none lives through any block.
        """
        waiting, again, given = (_Task(*each) for each in contents), deque[_Task](), dict[Any, _Given]()
        while True:
            self.start()
            for worker in [each for each in self.names if each not in {of.worker for of in given.values()}]:
                tasks = self._taken(waiting, again)
                if tasks:
                    ticket = self.carrier.give(worker, packed([task.content for task in tasks]))
                    given[ticket] = _Given(worker, tasks, time.monotonic())
            if not given:
                again.extend(islice(waiting, 0 if again else 1))
                if not again:
                    return
                if not self._coming:
                    raise BdauditError(f"no worker is left: {'; '.join(self.notes[-3:])}; what was measured is kept, repeat the command")
            ticket, data = self.carrier.next([*given, *self._coming], None if given else LONGEST_START)
            if ticket in self._coming:
                self._greet(self._coming.pop(ticket), data)
                continue
            yield from self._ended(given.pop(ticket), data, again)

    def _taken(self, waiting: Iterator[_Task], again: deque[_Task]) -> list[_Task]:
        """What the next worker is given: a block that cost another one by itself, or as many as take ``WANTED`` seconds."""
        if again:
            return [again.popleft()]
        most = min(self.together, max(1, math.ceil(WANTED / max(self._seconds, 1e-3))))
        return list(islice(waiting, most))

    def _ended(self, of: _Given, data: Callable[[], bytes], again: deque[_Task]) -> Iterator[tuple[int, Answer | None]]:
        name = self.names[of.worker]
        try:
            answers = _sent(data(), list[Answer], name)
            if len(answers) != len(of.tasks):
                raise BdauditError(f"{name} sent {len(answers)} answers to {len(of.tasks)} blocks")
        except (Lost, BdauditError) as error:
            self._lose(of.worker, f"{name} was lost ({error})" if isinstance(error, Lost) else f"{name} was dropped: {error}")
            for task in of.tasks:
                task.deaths += len(of.tasks) == 1  # of several, nobody knows which it was
                if task.deaths >= MOST_DEATHS:
                    self._give_up()
                    yield task.number, None
                else:
                    again.append(task)
            return
        self._given_up = 0
        self._seconds = (time.monotonic() - of.since) / len(of.tasks)
        for task, answer in zip(of.tasks, answers, strict=True):
            yield task.number, answer

    def _give_up(self) -> None:
        self._given_up += 1
        if self._given_up >= MOST_GIVEN_UP:
            why = f"{self._given_up} blocks in a row cost {MOST_DEATHS} workers each ({self.notes[-1]})"
            raise BdauditError(f"{why}; give workers more memory, or ask for fewer")

    def _greet(self, worker: Any, data: Callable[[], bytes]) -> None:
        try:
            said = _sent(data(), Hello, "a worker")
            problem = unlike(said, self.own)
            if problem:
                raise BdauditError(f"{said.name} was refused: {problem}")
        except (Lost, BdauditError) as error:
            self._failed += 1 if isinstance(error, Lost) else self.size
            self.notes.append(str(error) if "was refused" in str(error) else f"a worker did not come up: {error}")
            self.carrier.stop(worker)
            return
        self._failed = 0
        self.names[worker] = said.name

    def _lose(self, worker: Any, note: str) -> None:
        self.notes.append(note)
        del self.names[worker]
        self.carrier.stop(worker)

    def close(self) -> None:
        """End every worker."""
        for worker in (*self.names, *self._coming.values()):
            self.carrier.stop(worker)
        self.names.clear()
        self._coming.clear()


def _sent(data: bytes, kind: type[Message], of: str) -> Message:
    """What a worker sent; an ``Answer`` where ``kind`` was asked for says why there is none, and is raised."""
    raw = unpacked(data, object, of)
    if isinstance(raw, dict) and "error" in raw:
        raise BdauditError(fitted(raw, Answer, of).error)
    return fitted(raw, kind, of)


def unlike(said: Hello, own: Hello) -> str:
    """What makes a worker another model or another machine than the run, in words; empty where nothing does."""
    for what in ("digest", "tensors", "added", "device", "dtype"):
        if getattr(said, what) != getattr(own, what):
            return f"its {what} is {str(getattr(said, what))[:80]}, the run's {str(getattr(own, what))[:80]}"
    for name, version in own.versions.items():
        if said.versions.get(name) != version:
            return f"its {name} is {said.versions.get(name, 'missing')}, the run's {version}"
    tolerance = TOLERANCE.get(own.dtype, 0.0)
    apart = [abs(a - b) for a, b in zip(said.canary, own.canary, strict=False)]
    if len(said.canary) != len(own.canary) or max(apart, default=0.0) > tolerance:
        return f"it measures harmless texts otherwise, by up to {max(apart, default=math.inf):.2g} where {tolerance:g} is allowed"
    return ""
