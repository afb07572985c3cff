"""Ray as the carrier: one actor a GPU or a slice of the cores, on loopback, or on the cluster that this process runs in.

Nothing but this file imports Ray, and only where ``--workers`` asks for it.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from bdaudit.errors import BdauditError, UsageError
from bdaudit.workers.crew import Lost
from bdaudit.workers.environment import OWN, only_allowed
from bdaudit.workers.member import Member

STORE = 512 << 20
"""Bytes of Ray's store of objects, taken as they are needed; a block of pictures is up to 64 MiB, all others are far smaller."""
STARTS = 3
"""Times that Ray is started before the run gives up."""
_PREFIX = "bda-"
"""Of a session's folder; sockets in it leave little room for a name."""


def check_there() -> None:
    """Raises ``UsageError`` where Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise UsageError("--workers needs Ray, which is not installed: pip install 'bdaudit[ray]'")


def threads_of(workers: int) -> int:
    """Threads of each of ``workers`` on this machine's CPU: as OMP_NUM_THREADS says, or an even slice."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if said.isdecimal() and int(said) else max(1, (os.cpu_count() or 1) // workers)


@contextmanager
def started(workers: int | None, *, gpu: bool) -> Iterator[tuple[RayCarrier, int]]:
    """A block with Ray in it: its own for that many ``workers``, or the cluster's, with one a GPU or CPU. Ends what it started.

    ``gpu`` is whether the run is on one; the second value is how many workers there are to be.

    Raises:
        BdauditError: Ray does not come up, or has no room for a worker.
    """
    check_there()
    with _own(workers, gpu=gpu) if workers else _cluster() as ray:
        resources = ray.cluster_resources()
        count = int(resources.get("GPU" if gpu else "CPU", 0))
        if count < 1 or (workers or 1) > count:
            raise BdauditError(f"Ray has {count} {'GPUs' if gpu else 'CPUs'} for {workers or 'any'} workers; ask for fewer")
        yield RayCarrier(ray, gpu=gpu), workers or count


@contextmanager
def _own(workers: int, *, gpu: bool) -> Iterator[Any]:
    folder = tempfile.mkdtemp(prefix=_PREFIX, dir="/tmp")
    settings = OWN | {"RAY_AUTH_TOKEN": _token()}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield _up(workers, folder, gpu=gpu)
    finally:
        _end()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        shutil.rmtree(folder, ignore_errors=True)


@functools.cache
def _token() -> str:
    """One for as long as this process lives: Ray reads it once, and the next Ray of the run, as for another model, must know it."""
    return secrets.token_hex(16)


def _up(workers: int, folder: str, *, gpu: bool) -> Any:
    """Ray, once its node is there: Ray itself gives one 30 seconds, which a busy machine may not have.

    Raises:
        BdauditError: it is not there after ``STARTS`` tries.
    """
    with only_allowed():
        import ray

        for left in reversed(range(STARTS)):
            try:
                _init(ray, workers, f"{folder}/{left}", gpu=gpu)
                break
            except Exception as error:  # a plain one where the time is over, and nothing in common otherwise
                _end()
                if not left:
                    said = "the machine may be too busy: repeat the command, or leave --workers out"
                    raise BdauditError(f"Ray does not come up: {str(error)[:300]}; {said}") from error
    return ray


def _init(ray: Any, workers: int, folder: str, *, gpu: bool) -> None:
    ray.init(
        address="local", num_cpus=workers, num_gpus=None if gpu else 0, include_dashboard=False, log_to_driver=False,
        logging_level=logging.CRITICAL, object_store_memory=STORE, _temp_dir=folder,
        _system_config={"enable_worker_prestart": False, "prestart_worker_first_driver": False, "worker_niceness": 0},
    )  # fmt: skip


@contextmanager
def _cluster() -> Iterator[Any]:
    import ray

    try:
        ray.init(address="auto", log_to_driver=False, logging_level=logging.CRITICAL)
    except (ConnectionError, RuntimeError) as error:
        said = "--workers auto is for a Ray job or a node of a cluster (ray job submit); with none, give a number"
        raise UsageError(f"{said}: {str(error)[:200]}") from error
    try:
        yield ray
    finally:
        _end()


def _end() -> None:
    import ray

    ray.shutdown()


class RayCarrier:
    """Workers as actors; what goes to them and comes back is bytes."""

    def __init__(self, ray: Any, *, gpu: bool) -> None:
        self._ray, self._gpu = ray, gpu
        self.setup = b""
        """What each worker is made with."""

    def start(self) -> Any:
        """An actor on a GPU or a CPU of its own; it is never restarted, since its model would have to be opened anew."""
        asked = {"num_gpus": 1, "num_cpus": 0} if self._gpu else {"num_cpus": 1}
        return self._ray.remote(Member).options(max_restarts=0, max_task_retries=0, **asked).remote(self.setup)

    def greeted(self, worker: Any) -> Any:
        """Ticket of its hello."""
        return worker.hello.remote()

    def give(self, worker: Any, tasks: bytes) -> Any:
        """Ticket of its answers."""
        return worker.done.remote(tasks)

    def next(self, tickets: Sequence[Any], seconds: float | None) -> tuple[Any, Callable[[], bytes]]:
        """Waits for the first; raises ``BdauditError`` where none comes in time."""
        done, _ = self._ray.wait(list(tickets), num_returns=1, timeout=seconds)
        if not done:
            raise BdauditError(f"no worker came up in {seconds:.0f} s; what was measured is kept, repeat the command")
        return done[0], lambda: self._bytes(done[0])

    def _bytes(self, ticket: Any) -> bytes:
        try:
            data: bytes = self._ray.get(ticket)
        except self._ray.exceptions.RayError as error:
            raise Lost(type(error).__name__) from error
        return data

    def stop(self, worker: Any) -> None:
        """Kills it."""
        self._ray.kill(worker, no_restart=True)
