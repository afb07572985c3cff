"""One run a folder: the kernel says who is alive, and what a dead run left behind keeps nobody out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bdaudit import state_lock
from bdaudit.errors import BdauditError, UsageError

ROOT = Path(__file__).parents[2]
HOLD = """
import sys, time
from pathlib import Path
from bdaudit.state_lock import hold
hold(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def nothing_held() -> Iterator[None]:
    """Each test as a run of its own."""
    yield
    state_lock.release()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds ``kept``."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "kept")], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_run_is_kept_out_until_the_first_is_dead(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    with pytest.raises(UsageError, match="in use by another run; wait for it to end, or name another folder"):
        state_lock.hold(tmp_path / "kept")
    state_lock.hold(tmp_path / "another")
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert os.listdir(tmp_path / "kept") == [state_lock.LOCK], "nobody tidied up"
    state_lock.hold(tmp_path / "kept")


def test_the_same_run_may_come_back(tmp_path: Path) -> None:
    state_lock.hold(tmp_path / "kept")
    state_lock.hold(tmp_path / "here" / ".." / "kept")
    state_lock.hold(tmp_path / "kept")


def test_what_was_made_and_is_empty_goes_and_what_was_there_stays(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for name in ("there", "new/deep/er", "full/deep"):
        state_lock.hold(tmp_path / name)
    (tmp_path / "full/deep/kept").touch()
    state_lock.release()
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["full", "full/deep", "full/deep/kept", "there"]


def test_a_link_in_the_locks_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / state_lock.LOCK).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BdauditError, match="cannot make and lock the folder"):
        state_lock.hold(tmp_path / "kept")
    assert not (tmp_path / "elsewhere").exists()


def test_what_is_to_be_forgotten_waits_for_the_report(tmp_path: Path) -> None:
    forgotten: list[str] = []
    state_lock.when_delivered(tmp_path / "kept", lambda: forgotten.append("nobody holds it"))
    state_lock.hold(tmp_path / "kept")
    state_lock.when_delivered(tmp_path / "kept", lambda: forgotten.append("kept"))
    assert forgotten == []
    state_lock.delivered()
    assert forgotten == ["kept"]
