"""What a run writes: a file comes whole or not at all, and every target is really tried before the work.

A temporary name has the same length whatever it stands for, so that a name that can be used at all can be written.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from bdaudit.errors import BdauditError, UsageError

PREFIX, SUFFIX = ".bdaudit-", ".partial"
"""Of temporary names; one that is found was left by a run that was killed, and can be deleted."""
_ROOM = 1 << 20
"""Bytes that must be free beside what is known to be written."""
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG, errno.EACCES, errno.EPERM}
_ADVICE = {
    errno.ENOSPC: "make room, or name a place on another disk",
    errno.EDQUOT: "make room, or name a place on another disk",
    errno.ENAMETOOLONG: "name it shorter",
    errno.EBUSY: "it is a mount point, which cannot be replaced; name a new folder in it",
    errno.EXDEV: "it is a mount point, which cannot be replaced; name a new folder in it",
}


@contextlib.contextmanager
def whole(path: Path, *, flushed: bool = True) -> Iterator[Path]:
    """A block that writes a file under another name in ``path``'s folder; it is ``flushed`` to the disk, then gets its name.

    Raises:
        OSError: the folder or the disk refuses; nothing is left behind, and an older file stays as it was.
    """
    odd = _no_file(path)
    if odd:
        raise FileExistsError(errno.EEXIST, f"it is {odd}, which is not replaced", str(path))
    partial = temporary(path)
    partial.unlink(missing_ok=True)
    try:
        yield partial
        if flushed:
            with partial.open("rb") as file:
                os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _no_file(path: Path) -> str:
    """What lies at ``path`` that no file may be renamed over: a device, a pipe, a link to one or to an open file. Root could."""
    try:
        if os.path.islink(path) and os.readlink(path).startswith("/proc/"):
            return "a link to what this process has open"
        mode = os.stat(path).st_mode
    except OSError:  # nothing is there, or a link to nothing, which is replaced
        return ""
    return "" if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else "no regular file"


def write_whole(path: Path, data: bytes, *, flushed: bool = True, mode: int | None = None) -> None:
    """Writes ``path`` whole or not at all, with the permissions ``mode`` if it is given; raises as ``whole``."""
    with whole(path, flushed=flushed) as partial, partial.open("xb") as file:
        if mode is not None:
            partial.chmod(mode)
        file.write(data)


def temporary(path: Path) -> Path:
    """The name that a file has while this process writes it."""
    told = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:12]
    return path.with_name(f"{PREFIX}{told}-{os.getpid()}{SUFFIX}")


def staging(out: Path) -> Path:
    """A new folder beside ``out``, to be renamed."""
    return Path(tempfile.mkdtemp(prefix=PREFIX, suffix=SUFFIX, dir=out.parent))


def try_written(written: Iterable[tuple[str, Path]]) -> None:
    """Try whatever a config says that its run writes, by flag and path, before the work.

    Raises:
        UsageError: one of them is not free, or cannot be made.
        BdauditError: the disk is full, read-only or broken, or does not let this user write.
    """
    for flag, path in written:
        said = f"{flag} {path}"
        with _telling(said):
            {"--out": _try_out, "--patch": _try_patch}.get(flag, _try_folder)(path, said)


def _try_out(out: Path, said: str) -> None:
    if not out.name or out.name == ".." or out.is_symlink():
        raise UsageError(f"{said} is {'a link' if out.is_symlink() else 'no name of a directory'}; name the directory itself")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{said} is a file; expected a directory that does not exist yet")
    if out.is_dir() and any(out.iterdir()):
        raise UsageError(f"{said} is not empty; name a new directory, or remove this one yourself")
    if not out.parent.is_dir():
        raise UsageError(f"{said}: the folder {out.parent} does not exist; create it first")
    _try_new_folder(out, said)


def _try_patch(path: Path, said: str) -> None:
    if path.suffix != ".safetensors":
        raise UsageError(f"{said}: expected a name that ends in .safetensors")
    if path.exists():
        raise UsageError(f"{said} exists; name a new file, or remove this one yourself")
    if not path.parent.is_dir():
        raise UsageError(f"{said}: the folder {path.parent} does not exist; create it first")
    try_file(path, said)


def try_file(path: Path, said: str) -> None:
    """Create, rename and remove a file in ``path``'s place, or beside an older one.

    Raises:
        UsageError: it is no name of a file that can be written, with what to do; ``said`` is what messages call it.
        BdauditError: the disk is full, read-only or broken, or does not let this user write.
    """
    with _telling(said):
        if path.is_dir():
            raise UsageError(f"{said} is a folder; name a file")
        odd = _no_file(path)
        if odd:
            raise UsageError(f"{said} is {odd}, which a report would replace; name a file, or have it on stdout with --format alone")
        partial = temporary(path)
        try:
            partial.write_bytes(b"\n")
            if not os.path.lexists(path):
                partial.rename(path)
                path.unlink()
        finally:
            partial.unlink(missing_ok=True)


def _try_folder(path: Path, said: str) -> None:
    """Create a folder, or take the one that is there, and try a file in it; what was made is removed. Raises as ``try_file``."""
    if path.exists() and not path.is_dir():
        raise UsageError(f"{said} is a file; expected a folder, or a name that is free")
    missing = [each for each in (*reversed(path.parents), path) if not each.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        try_file(path / "probe", said)
    finally:
        with contextlib.suppress(OSError):  # another run may have put something there
            for each in reversed(missing):
                each.rmdir()


def _try_new_folder(path: Path, said: str) -> None:
    """Create a folder beside ``path`` and rename it to that, or the empty one that is there away and back; raises as ``try_file``."""
    made = staging(path)
    try:
        (made / "probe").write_bytes(b"\n")
        if path.exists():
            os.rename(path, made / "empty")
            os.rename(made / "empty", path)
        else:
            (made / "probe").unlink()
            os.rename(made, path)
            path.rmdir()
    finally:
        shutil.rmtree(made, ignore_errors=True)


def check_room(folder: Path, needed: int, said: str) -> None:
    """Raises ``BdauditError`` where the disk of ``folder`` says that it has no room for ``needed`` bytes."""
    with _telling(said):
        disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    if disk.f_blocks and free < needed + _ROOM:
        raise BdauditError(f"{said} takes {needed / 1e6:,.1f} MB, the disk has {free / 1e6:,.1f} MB free; {_ADVICE[errno.ENOSPC]}")


@contextlib.contextmanager
def _telling(said: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, "name a place that can be written")
        kind = BdauditError if error.errno in _DISK else UsageError
        raise kind(f"{said} cannot be written: {error.strerror}; {advice}") from error
