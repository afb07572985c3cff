"""Folders of the user's cache: whose they are, and that they go."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from bdaudit import state_home, state_lock
from bdaudit.errors import BdauditError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_folder_and_its_variants_are_kept_here_and_nothing_else(cache: Path, tmp_path: Path) -> None:
    folder = state_home.home() / "scan-1"
    assert folder == cache / "bdaudit/states/scan-1"
    assert [state_home.is_kept_here(each) for each in (folder, folder / "variant-fp16")] == [True, True]
    for other in (cache, state_home.home(), folder / "a/b", tmp_path / "s", Path("s")):
        assert not state_home.is_kept_here(other), other


def test_what_is_taken_is_this_users_alone_and_goes_when_it_is_cleared(cache: Path) -> None:
    folder = state_home.home() / "scan-1"
    before = os.umask(0)
    try:
        state_home.take(folder)
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in (cache / "bdaudit", cache / "bdaudit/states")] == [0o700, 0o700]
    (folder / "deep").mkdir()
    (folder / "deep/x").touch()
    state_home.clear(folder)
    state_lock.release()
    assert os.listdir(state_home.home()) == []


@pytest.mark.parametrize("mode", [0o770, 0o702])
def test_where_others_could_have_put_something_nothing_is_taken(cache: Path, mode: int) -> None:
    (cache / "bdaudit/states").mkdir(parents=True)
    (cache / "bdaudit/states").chmod(mode)
    with pytest.raises(BdauditError, match="no folder that this user alone can write"):
        state_home.take(state_home.home() / "scan-1")


def test_somebody_elses_folder_is_not_taken(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / "bdaudit").mkdir(parents=True)
    monkeypatch.setattr("os.geteuid", lambda: os.getuid() + 1)
    with pytest.raises(BdauditError, match="no folder that this user alone can write"):
        state_home.take(state_home.home() / "scan-1")


def test_a_folder_that_goes_while_others_are_looked_at_is_no_obstacle(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state_home.take(state_home.home() / "scan-1")
    gone = state_home.home() / "scan-2"
    monkeypatch.setattr(Path, "iterdir", lambda _: iter([gone]))
    state_home.take(state_home.home() / "scan-3")
    monkeypatch.undo()
    state_lock.release()


@pytest.mark.parametrize(("days", "stays"), [(6.9, True), (7.1, False)])
def test_a_week_is_the_most(days: float, stays: bool) -> None:
    old = state_home.home() / "scan-old"
    state_home.take(old)
    state_lock.release()
    old.mkdir(exist_ok=True)
    (old / "kept").touch()
    os.utime(old, (time.time() - days * 86_400,) * 2)
    state_home.take(state_home.home() / "scan-new")
    state_lock.release()
    assert old.exists() is stays
