"""The one door for whatever a run opens: regular files alone, within bounds, and never waiting for anybody.

Everything is checked on the descriptor that is then read, so that a file exchanged in between is never taken for the one that was checked.
``said`` is what messages call the file (``--policy bounds.toml``); ``error`` is the kind that they are raised as.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bdaudit.errors import BdauditError, UsageError
from bdaudit.untrusted.holes import mostly_hole
from bdaudit.untrusted.tree import is_pointer, kind_of, parse_json, pointer_said, shown

Raised = Callable[[str], Exception]
"""From a message to the error that is raised."""

FIRST = 1 << 18
"""Bytes that are read first: as many as are asked for are allocated, and most files are far shorter than they may be."""
TOML_LIMITS = (1 << 16, 2_000, 1_000)
"""Bytes, lines, and characters of a line. A dotted key takes time by the square of its length: 60 kB of one line took 24 s."""


def open_file(
    path: Path | str, said: str, *, error: Raised = UsageError, follow: bool = True, folder: int | None = None
) -> io.BufferedReader:
    """Open a regular file, and nothing else, without waiting for a writer.

    ``follow`` is whether the last name of ``path`` may be a link; ``folder`` is a directory's descriptor that ``path`` starts from.

    Raises:
        BdauditError: as ``error``: missing, a link that is not to be followed, no regular file, or mostly a hole.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY | (0 if follow else os.O_NOFOLLOW)
    try:
        handle = os.open(path, flags, dir_fd=folder)
    except (OSError, ValueError) as problem:  # ValueError: a NUL in the name
        link = not follow and getattr(problem, "errno", None) == errno.ELOOP
        why = "it is a link, which is not followed" if link else getattr(problem, "strerror", None) or problem
        raise error(f"{said} cannot be opened: {why}") from problem
    try:
        _check(handle, said, error)
    except BaseException:
        os.close(handle)
        raise
    return os.fdopen(handle, "rb")


def _check(handle: int, said: str, error: Raised) -> None:
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        raise error(f"{said} is {kind_of(found.st_mode)}; expected a regular file")
    if mostly_hole(handle):
        raise error(f"{said} is mostly a hole: it claims {found.st_size:,} bytes that are not on the disk; copy or fetch it anew")


def read_file(path: Path | str, said: str, limit: int, *, error: Raised = UsageError, follow: bool = True) -> bytes:
    """All of a file of at most ``limit`` bytes.

    Raises:
        BdauditError: as ``error``: as ``open_file``, longer, or what Git LFS left in its place.
    """
    with open_file(path, said, error=error, follow=follow) as file:
        return read_all(file, said, limit, error=error)


def read_all(file: io.BufferedReader, said: str, limit: int, *, error: Raised = UsageError) -> bytes:
    """All of an open file; raises as ``read_file``."""
    with reading(said, error):
        data = _read(file, min(limit + 1, FIRST))
        if len(data) == FIRST:
            data += _read(file, limit + 1 - FIRST)
    if len(data) > limit:
        raise error(f"{said} is longer than {limit:,} bytes; expected a smaller file")
    if is_pointer(data):
        raise error(pointer_said(said))
    return data


def _read(file: io.BufferedReader, most: int) -> bytes:
    return file.read(most) or b""  # None where there is nothing yet, as of the kernel's log


def read_json(path: Path, said: str, limits: tuple[int, int], *, error: Raised = UsageError, follow: bool = True) -> Any:
    """JSON within ``limits`` (bytes, commas plus brackets), with finite numbers and unique keys, nested at most 64 deep.

    Raises:
        BdauditError: as ``error``.
    """
    return json_of(read_file(path, said, limits[0], error=error, follow=follow), said, limits[1], error=error)


def json_of(data: bytes, said: str, items: int, *, error: Raised = UsageError) -> Any:
    """The same of bytes that were read already."""
    try:
        return parse_json(data, said, items, finite=True)
    except BdauditError as problem:
        raise error(str(problem)) from problem


def read_toml(path: Path, said: str) -> dict[str, Any]:
    """TOML within ``TOML_LIMITS``.

    Raises:
        UsageError: anything else.
    """
    most, lines, longest = TOML_LIMITS
    data = read_file(path, said, most)
    each = data.splitlines()
    if len(each) > lines or max(map(len, each), default=0) > longest:
        raise UsageError(f"{said} has more than {lines:,} lines, or one of more than {longest:,} characters; settings are short")
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as problem:  # a number of 5,000 digits is a plain ValueError, 3,000 brackets a RecursionError
        raise UsageError(f"{said}: expected TOML; got {shown(problem)}") from problem


def sha256(path: Path, said: str, *, error: Raised = UsageError) -> str:
    """A file's SHA-256, in hex; raises as ``open_file``, and where it cannot be read."""
    with open_file(path, said, error=error) as file, reading(said, error):
        digest = hashlib.sha256()
        while block := _read(file, 1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def reading(said: str, error: Raised) -> Iterator[None]:
    """A block that reads an open file: what the system refuses then is told as ``error``. Some files open and cannot be read."""
    try:
        yield
    except OSError as problem:
        raise error(f"{said} cannot be read: {problem.strerror}") from problem
