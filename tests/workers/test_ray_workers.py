"""Real Ray on this machine: what it carries, what it opens, what it is told, and what becomes of a run whose workers are killed.

One Ray for all tests here, and one scan beside the one without workers: a Ray takes seconds to start.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bdaudit.errors import BdauditError, UsageError
from bdaudit.workers import ray_workers
from bdaudit.workers.crew import Lost
from bdaudit.workers.ray_workers import RayCarrier, started, threads_of

CANARY = "BDAUDIT_TEST_SECRET"


class Probe:
    """What a worker sees; stands where a run's worker does."""

    def __init__(self, setup: bytes) -> None:
        self._setup = setup

    def hello(self) -> bytes:
        environment = Path("/proc/self/environ").read_bytes()
        return b"\n".join([str(os.getpid()).encode(), self._setup, b" ".join(name.encode() for name in os.environ), environment])

    def done(self, tasks: bytes) -> bytes:
        return tasks


@pytest.fixture(scope="module")
def carrier() -> Iterator[RayCarrier]:
    """Ray for two, told of a secret that it must not hand on; the second of this process, as of a run that opens two models."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CANARY, "canary")
        patch.setattr(ray_workers, "Member", Probe)
        with started(1, gpu=False):
            pass
        with started(2, gpu=False) as (carrier, size):
            assert size == 2
            carrier.setup = b"setup"
            yield carrier


def children(of: int) -> set[int]:
    """Process ids below one, by what the kernel says."""
    parents: dict[int, int] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = {of}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def listening(processes: set[int]) -> set[str]:
    """Addresses, in the kernel's hexadecimal, on which these processes listen or take datagrams."""
    sockets: set[str] = set()
    for process in processes:
        for handle in Path(f"/proc/{process}/fd").glob("*"):
            try:
                target = os.readlink(handle)
            except OSError:
                continue
            if target.startswith("socket:["):
                sockets.add(target[8:-1])
    found: set[str] = set()
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[9] in sockets and (words[3] == "0A" or table.startswith("udp")):
                found.add(words[1].partition(":")[0])
    return found


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def test_a_worker_gets_bytes_and_no_secret_and_listens_on_loopback_alone(carrier: RayCarrier) -> None:
    worker = carrier.start()
    ticket, data = carrier.next([carrier.greeted(worker)], 300)
    process, setup, names, environment = data().split(b"\n", 3)
    assert setup == b"setup"
    assert CANARY.encode() not in names + environment
    assert b"PATH" in names.split()
    assert os.environ[CANARY] == "canary"
    ours = children(os.getpid())
    assert int(process) in ours
    where = listening(ours)
    assert where
    assert where <= LOOPBACK, "nothing but loopback"
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    told = carrier.give(worker, b"\x00any bytes")
    assert carrier.next([told], 60)[1]() == b"\x00any bytes"
    pictures = bytes(range(256)) * (1 << 18)
    assert carrier.next([carrier.give(worker, pictures)], 60)[1]() == pictures, "64 MiB"
    told = carrier.give(worker, b"x")
    os.kill(int(process), signal.SIGKILL)
    dead = carrier.give(worker, b"y")
    with pytest.raises(Lost):
        carrier.next([dead], 60)[1]()
    assert ticket != told


def test_the_sockets_of_a_process_are_seen() -> None:
    """So that silence above means something."""
    import socket

    with socket.socket() as anywhere:
        anywhere.bind(("0.0.0.0", 0))
        anywhere.listen()
        assert "00000000" in listening({os.getpid()})


def test_without_ray_the_flag_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'bdaudit\[ray\]'"), started(2, gpu=False):
        pass


class Slow:
    """A Ray whose node is not there in time, as often as it is told."""

    __spec__ = "installed"

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.folders: list[str] = []
        self.ended = 0

    def init(self, *, _temp_dir: str, **_: object) -> None:
        assert CANARY not in os.environ
        self.folders.append(_temp_dir)
        if len(self.folders) <= self.failures:
            raise Exception("The current node timed out during startup.")

    def shutdown(self) -> None:
        self.ended += 1

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_a_node_that_is_not_there_in_time_is_started_again_beside_it(monkeypatch: pytest.MonkeyPatch, failures: int) -> None:
    monkeypatch.setenv(CANARY, "canary")
    monkeypatch.setitem(sys.modules, "ray", slow := Slow(failures))  # type: ignore[arg-type]
    with started(2, gpu=False) as (_, size):
        assert size == 2
        assert slow.ended == failures
    assert len(set(slow.folders)) == failures + 1
    assert slow.ended == failures + 1
    assert os.environ[CANARY] == "canary"


def test_a_node_that_is_never_there_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", slow := Slow(9))  # type: ignore[arg-type]
    with pytest.raises(BdauditError, match=r"Ray does not come up: The current node timed out .*repeat the command"), started(2, gpu=False):
        pass
    assert len(slow.folders) == 3


@pytest.mark.parametrize(("said", "workers", "threads"), [("3", 2, 3), ("", 10_000, 1), ("many", 10_000, 1), ("0", 10_000, 1)])
def test_the_threads_of_a_worker(monkeypatch: pytest.MonkeyPatch, said: str, workers: int, threads: int) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert threads_of(workers) == threads


@pytest.mark.parametrize("module", ["bdaudit.scan.run", "bdaudit.workers.ray_workers", "bdaudit.workers.member"])
def test_nothing_imports_ray_by_itself(module: str) -> None:
    program = f"import sys, {module}; sys.exit('ray' in sys.modules)"
    done: Any = subprocess.run(
        [sys.executable, "-c", program], check=False, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    )
    assert done.returncode == 0
