"""Whose a state folder is while a run lasts, and what becomes of it when the run's report is delivered. Knows nothing of what is kept.

The lock is the kernel's, on a file in the folder: it ends with the process however that ends, so none is ever left over.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bdaudit.errors import BdauditError, UsageError

LOCK = ".lock"
"""The file's name; it stays behind where a run was killed, and means nothing then."""
_TRIES = 20


@dataclass
class _Held:
    descriptor: int
    made: list[Path]
    """Folders that were not there before, the outermost first."""
    forget: list[Callable[[], None]] = field(default_factory=list)


_HELD: dict[Path, _Held] = {}
"""What this process holds: a lock is the process's, not a value's."""


def hold(folder: Path) -> None:
    """Keep other runs out of ``folder``, which is made where it is missing, until ``release`` or the process's end.

    Raises:
        UsageError: another run holds it.
        BdauditError: it cannot be made or written.
    """
    place = folder.resolve()
    if place in _HELD:
        if (place / LOCK).exists():
            return
        release(place)  # somebody has removed the folder
    try:
        made = _make(place)
        _HELD[place] = _Held(_locked(place), made)
    except BlockingIOError as error:
        raise UsageError(f"--state {folder} is in use by another run; wait for it to end, or name another folder") from error
    except OSError as error:
        raise BdauditError(f"--state {folder}: cannot make and lock the folder: {error}") from error


def when_delivered(folder: Path, forget: Callable[[], None]) -> None:
    """Call ``forget`` once the run's report is where it was asked for; until then all that is kept stays."""
    held = _HELD.get(folder.resolve())
    if held is not None:
        held.forget.append(forget)


def delivered() -> None:
    """The run's report is where it was asked for."""
    for held in list(_HELD.values()):
        for forget in held.forget:
            forget()


def release(folder: Path | None = None) -> None:
    """Let other runs in again, and remove what is empty of what was made; all that is held without a ``folder``."""
    for place in [folder.resolve()] if folder else list(_HELD):
        held = _HELD.pop(place, None)
        if held is None:
            continue
        with contextlib.suppress(OSError):
            (place / LOCK).unlink()
        os.close(held.descriptor)
        with contextlib.suppress(OSError):
            for path in reversed(held.made):
                path.rmdir()


def _make(folder: Path) -> list[Path]:
    missing = [path for path in reversed((folder, *folder.parents)) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _locked(folder: Path) -> int:
    """A descriptor of the lock file, locked; one that another run has removed since it was opened does not count."""
    import fcntl

    for _ in range(_TRIES):
        with contextlib.suppress(FileNotFoundError):
            folder.mkdir(exist_ok=True)
            descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.stat(folder / LOCK), os.fstat(descriptor)):
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
    raise BlockingIOError(f"{folder / LOCK} comes and goes")
