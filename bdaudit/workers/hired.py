"""The crew of a run: started where ``--workers`` asks for more than this process, told what the run is, ended with the block."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from bdaudit.measure.envelope import versions
from bdaudit.models.suspect import Suspect
from bdaudit.untrusted.inspect import Inspection
from bdaudit.workers.crew import MOST_TOGETHER, Crew
from bdaudit.workers.ray_workers import started, threads_of
from bdaudit.workers.wire import Hello, ModelAsked, Setup, packed


@dataclass(frozen=True)
class Hired:
    """What a crew is for."""

    bench: str
    """A name in ``member.BENCHES``."""
    settings: dict[str, Any]
    """Of the bench."""
    model: ModelAsked
    suspect: Suspect
    """The same model, open here."""
    inspection: Inspection
    added: Sequence[str]
    """Keys of its adapters and embeddings."""
    canary: Callable[[], tuple[float, ...]]
    """What the bench's own canary must agree with."""
    together: int = MOST_TOGETHER
    """Blocks that a worker is given at once, at most."""

    def _own(self) -> Hello:
        """What a worker must say of itself, but for its name."""
        before = self.suspect.forward_passes
        figures = self.canary()
        self.suspect.forward_passes = before  # the canary is no part of the run
        return Hello(
            name=f"process {os.getpid()} on {platform.node()}",
            digest=self.inspection.digest,
            tensors=self.inspection.tensors.exact if self.inspection.tensors else "",
            added=tuple(self.added),
            versions=versions(),
            device=self.suspect.device.type,
            dtype=str(self.suspect.dtype),
            canary=figures,
        )

    def _setup(self, threads: int) -> Setup:
        suspect = self.suspect
        kind: dict[str, Any] = {"device": suspect.device.type, "dtype": str(suspect.dtype).removeprefix("torch.")}
        model = replace(self.model, **kind, batch_size=suspect.batch_size)
        return Setup(bench=self.bench, model=model, settings=self.settings, threads=threads)

    @contextmanager
    def crew(self, workers: str) -> Iterator[Crew | None]:
        """A block with as many workers as ``--workers`` says; none where that is one process, which is this.

        Raises:
            UsageError: Ray is not installed, or ``auto`` outside a cluster.
            BdauditError: Ray does not come up, or has no room.
        """
        if workers == "1":
            yield None
            return
        count = None if workers == "auto" else int(workers)
        with started(count, gpu=self.suspect.device.type == "cuda") as (carrier, size):
            carrier.setup = packed(self._setup(threads_of(size)))
            crew = Crew(carrier, size, self._own(), together=self.together)
            try:
                yield crew
            finally:
                crew.close()


class Turns:
    """One crew at a time, for a run that opens several models: the workers of the next one start when those of the last have ended."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        """Who was dropped or lost of any crew, and why."""
        self._stack = ExitStack()
        self._of: object = None
        self._crew: Crew | None = None

    def crew(self, of: object, opened: Callable[[], AbstractContextManager[Crew | None]]) -> Crew | None:
        """The crew for ``of``, opened if it is not there yet; whoever had one before it loses it."""
        if self._of is not of:
            self.close()
            self._crew, self._of = self._stack.enter_context(opened()), of
            if self._crew:
                self._crew.notes = self.notes
        return self._crew

    def close(self) -> None:
        """End the workers that are there."""
        self._stack.close()
        self._of = self._crew = None
