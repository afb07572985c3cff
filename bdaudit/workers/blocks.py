"""What a crew makes of a verb's blocks: each answer checked for its kind, whoever failed told, and how fast it goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from bdaudit.errors import BdauditError, InconclusiveError
from bdaudit.progress import MORE, Progress
from bdaudit.workers.crew import Crew
from bdaudit.workers.wire import fitted

Value = TypeVar("Value")
Kept = TypeVar("Kept")


def answered(
    crew: Crew, tasks: Iterable[tuple[int, Any]], kind: type[Value], name: Callable[[int], str]
) -> Iterator[tuple[int, Value, int]]:
    """Number, value of ``kind`` and forward passes of each numbered task, in the order that they come in; ``name`` tells one to a person.

    Raises:
        BdauditError: no worker is left, one says why its block failed, or sends what does not fit.
        InconclusiveError: after all others, where a block cost every worker that it was given to.
    """
    given_up = list[int]()
    for number, answer in crew.answers(tasks):
        if answer is None:
            given_up.append(number)
            continue
        if answer.error:
            raise BdauditError(answer.error)
        yield number, fitted(answer.value, kind, "a worker"), answer.passes
    if given_up:
        named = "; ".join(name(number)[:120] for number in given_up[:3])
        one, many = "1 block cost every worker that it was", f"{len(given_up)} blocks cost every worker that they were"
        why = f"{one if len(given_up) == 1 else many} given to, skipped: {named!a}"
        raise InconclusiveError(f"{why}; all others are kept; repeat the command without workers, or leave these texts out")


def checked(read: Callable[[], Kept]) -> Kept:
    """What ``read`` makes of a worker's answer; its ``ValueError`` is the worker's fault, a ``BdauditError``."""
    try:
        return read()
    except ValueError as error:
        raise BdauditError(f"a worker sent what cannot have come of its block ({error})") from error


@dataclass
class Pace:
    """Tells a person how far a crew is with ``total`` items, how many a second it does, and how many workers there are."""

    crew: Crew
    progress: Progress
    said: str
    """What goes on; empty where nobody is to be told."""
    items: str
    """What they are called."""
    total: int
    done: int = 0
    _began: tuple[float, int] = field(init=False)

    def __post_init__(self) -> None:
        self._began = time.monotonic(), self.done

    def at(self, done: int) -> None:
        """So many are done in all."""
        began, first = self._began
        self.done = done
        rate = (done - first) / max(time.monotonic() - began, 1e-3)
        alive = "1 worker" if self.crew.alive == 1 else f"{self.crew.alive} workers"
        told = f"{self.said}{MORE}{rate:.3g} {self.items} a second{MORE}{alive}"
        self.progress(told if self.said else "", done, self.total)
