"""The process's own streams, made to last: a closed one leads nowhere, and a reader that goes away takes nothing of the run along.

Imports the standard library alone: the entry point calls ``take`` before anything else can fail.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class Lasting(io.FileIO):
    """A descriptor that takes whatever is written to it; what its reader does not take is dropped."""

    lost = ""
    """Why something was dropped, but for a reader that left by itself."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)

    def write(self, data: ReadableBuffer, /) -> int:
        """Never raises ``OSError``, and waits where the descriptor was told not to."""
        try:
            while (written := self._written(data)) is None:
                select.select([], [self.fileno()], [])
            return written
        except BrokenPipeError:
            pass
        except OSError as error:
            self.lost = f"{type(error).__name__}: {error}"
        return memoryview(data).nbytes

    def _written(self, data: ReadableBuffer) -> int | None:
        return super().write(data)


def take() -> None:
    """Put lasting streams in place of the process's own; call it before any file is opened.

    A descriptor that is closed is opened on nothing, so that no file of the run gets its number, and with it what libraries print. What
    they print on descriptor 1 goes where stderr goes: stdout is the report's alone. A stream that somebody else has put in place stays.
    """
    for descriptor in (0, 1, 2):
        if not _is_open(descriptor):
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest number that is free
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stdout is None or sys.stdout is sys.__stdout__:
        own = os.dup(1)
        os.dup2(2, 1)
        sys.stdout = _text(own, at_once=os.isatty(own))
    if sys.stderr is None or sys.stderr is sys.__stderr__:
        sys.stderr = _text(2, at_once=True)


def lost(stream: Any) -> str:
    """Why some of what was written to a stream since the last call went nowhere; empty where all is well, or its reader left by itself."""
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    if not isinstance(raw, Lasting):
        return ""
    with contextlib.suppress(ValueError):
        stream.flush()
    why, raw.lost = raw.lost, ""
    return why


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _text(descriptor: int, *, at_once: bool) -> TextIO:
    raw = io.BufferedWriter(Lasting(descriptor))
    return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", line_buffering=at_once)
