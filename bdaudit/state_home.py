"""Where runs that were given no ``--state`` keep what they have: folders in the user's own cache, which nobody else may enter.

A folder is of one command, as it was typed. It goes when the command has come to its end; of one that never did, after ``DAYS``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
from pathlib import Path

from bdaudit import state_lock
from bdaudit.errors import BdauditError

DAYS = 7
"""That a folder stays whose command is not repeated."""
_OPEN_TO_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def home() -> Path:
    """``$XDG_CACHE_HOME/bdaudit/states``; ``~/.cache/bdaudit/states`` where that variable is no absolute path.

    Raises:
        BdauditError: this user has no home.
    """
    named = os.environ.get("XDG_CACHE_HOME", "")
    try:
        cache = Path(named) if os.path.isabs(named) else Path.home() / ".cache"
    except RuntimeError as error:
        raise BdauditError(f"no folder for a cache is known: {error}") from error
    return cache / "bdaudit" / "states"


def is_kept_here(folder: Path) -> bool:
    """Whether a state's folder is one of these, or one of its variants': nobody asked for it, so that no run may fail for it."""
    with contextlib.suppress(BdauditError):
        return home() in (folder.parent, folder.parent.parent)
    return False


def take(folder: Path) -> None:
    """Make a folder of ``home`` and hold it for this run; folders that nobody came back to are removed.

    Raises:
        BdauditError: the cache cannot be written, is somebody else's to write, or another run holds the folder.
    """
    try:
        folder.parents[2].mkdir(parents=True, exist_ok=True)
        for place in (folder.parents[1], folder.parent):
            _make_own(place)
        _sweep(folder.parent, kept=folder)
        state_lock.hold(folder)
        os.utime(folder)
    except OSError as error:
        raise BdauditError(f"{folder.parent} cannot be written: {error.strerror or error}") from error


def clear(folder: Path) -> None:
    """Remove a folder that ``take`` has taken, with all that is in it."""
    shutil.rmtree(folder, ignore_errors=True)


def _make_own(place: Path) -> None:
    """A folder that this user alone can enter; raises ``BdauditError`` where another one could have put something there."""
    with contextlib.suppress(FileExistsError):
        place.mkdir(mode=0o700)
    seen = place.lstat()
    if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.geteuid() or seen.st_mode & _OPEN_TO_OTHERS:
        raise BdauditError(f"{place} is no folder that this user alone can write")
    place.chmod(0o700)


def _sweep(root: Path, kept: Path) -> None:
    for folder in root.iterdir():
        if folder == kept or not _is_old(folder):
            continue
        with contextlib.suppress(BdauditError):  # a run of more than a week is at work there
            state_lock.hold(folder)
            clear(folder)
            state_lock.release(folder)


def _is_old(folder: Path) -> bool:
    try:
        seen = folder.lstat()
    except FileNotFoundError:  # its own run has come to its end meanwhile
        return False
    return stat.S_ISDIR(seen.st_mode) and time.time() - seen.st_mtime > DAYS * 86_400
