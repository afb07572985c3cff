"""Files that claim more bytes than are on the disk."""

from __future__ import annotations

import contextlib
import os

_SPARSE, _EXTENTS = 16 << 20, 10_000
"""Bytes from which a file is asked for its holes, and pieces of it that are looked at."""


def mostly_hole(handle: int) -> bool:
    """Whether less than half of a large open file is on the disk; a few kB can claim terabytes that way."""
    size = os.fstat(handle).st_size
    if size < _SPARSE or not hasattr(os, "SEEK_DATA"):
        return False
    held = end = 0
    with contextlib.suppress(OSError):  # past the last data, or a file system that does not say
        for _ in range(_EXTENTS):
            start = os.lseek(handle, end, os.SEEK_DATA)
            end = os.lseek(handle, start, os.SEEK_HOLE)
            held += end - start
            if 2 * held >= size:
                break
    os.lseek(handle, 0, os.SEEK_SET)
    return 2 * held < size
