"""What runs in a worker's process: the model, inspected and hashed there as here, and the blocks that it is given."""

from __future__ import annotations

import os
import platform
from importlib import import_module
from typing import Any, Protocol

from bdaudit.errors import BdauditError
from bdaudit.workers.environment import forget
from bdaudit.workers.wire import Answer, Hello, Setup, packed, unpacked

BENCHES = {"scan": "bdaudit.scan.bench", "unlearn": "bdaudit.unlearn.repair.bench", "verify": "bdaudit.verify.bench"}
"""Name → the module with its ``Bench``."""


class Bench(Protocol):
    """A verb's side of a worker."""

    @property
    def passes(self) -> int:
        """Forward passes so far."""

    def canary(self) -> tuple[float, ...]:
        """Figures of texts that every worker measures, and the run itself."""

    def done(self, task: Any) -> Any:
        """What came of one task, both of JSON's kinds.

        Raises:
            BdauditError: whatever it raises here.
        """


class Member:
    """One worker. Its methods take bytes and return bytes, whatever happens: an exception would cross as a pickled object."""

    def __init__(self, setup: bytes) -> None:
        forget()
        self._setup = setup
        self._bench: Bench | None = None

    def hello(self) -> bytes:
        """Open the model; ``Hello``, or an ``Answer`` that says why not."""
        try:
            said, self._bench = opened(unpacked(self._setup, Setup, "the run"))
            return packed(said)
        except Exception as error:
            return packed(_undeclared(error))

    def done(self, tasks: bytes) -> bytes:
        """A list of ``Answer``, one a task; where nobody declared an error, one ``Answer`` with it in the list's place."""
        try:
            return packed([self._answer(task) for task in unpacked(tasks, list[Any], "the run")])
        except Exception as error:
            return packed(_undeclared(error))

    def _answer(self, task: Any) -> Answer:
        assert self._bench is not None
        before = self._bench.passes
        try:
            value = self._bench.done(task)
        except BdauditError as error:
            return Answer(error=str(error)[:2000])
        return Answer(value=value, passes=self._bench.passes - before)


def _undeclared(error: Exception) -> Answer:
    return Answer(error=f"{type(error).__name__}: {error}"[:2000])


def opened(setup: Setup) -> tuple[Hello, Bench]:
    """The bench, and what it says of itself."""
    import torch

    from bdaudit.measure.envelope import versions
    from bdaudit.measure.opening import inspected, loaded
    from bdaudit.models.embeddings import learn, read_embedding
    from bdaudit.models.lora import merge, read_adapters

    config = setup.model.config()
    torch.set_num_threads(setup.threads)
    inspection = inspected(config, config.model)
    suspect = loaded(config, inspection)
    adapters = read_adapters(setup.model.adapters, suspect)
    embeddings = tuple(read_embedding(path, token) for path, token in setup.model.embeddings)
    merge(suspect, adapters)
    learn(suspect, embeddings)
    bench: Bench = import_module(BENCHES[setup.bench]).Bench(suspect, setup.settings)
    said = Hello(
        name=f"process {os.getpid()} on {platform.node()}",
        digest=inspection.digest,
        tensors=inspection.tensors.exact if inspection.tensors else "",
        added=(*(each.key for each in adapters), *(each.key for each in embeddings)),
        versions=versions(),
        device=suspect.device.type,
        dtype=str(suspect.dtype),
        canary=bench.canary(),
    )
    return said, bench
