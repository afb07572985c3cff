"""What the package logs while a run lasts, as lines on stderr; and its stages, where somebody wants to hear of each."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bdaudit.progress import MORE, Progress
from bdaudit.report.safe import one_line

log = logging.getLogger("bdaudit")
Emit = Callable[[str], None]


class _Lines(logging.Handler):
    def __init__(self, emit: Emit, *, timed: bool) -> None:
        super().__init__()
        self._emit, self._began = emit, time.monotonic() if timed else None

    def emit(self, record: logging.LogRecord) -> None:
        since = "" if self._began is None else f"{time.monotonic() - self._began:.1f} s: "
        what = "warning: " if record.levelno >= logging.WARNING else ""
        self._emit(f"bdaudit: {since}{what}{one_line(record.getMessage())}")


@contextmanager
def logged(emit: Emit, *, quiet: bool, verbose: bool) -> Iterator[None]:
    """A block whose log goes to ``emit``, line by line: warnings alone where it is ``quiet``, stages and their seconds if ``verbose``."""
    lines = _Lines(emit, timed=verbose)
    level, propagate = log.level, log.propagate
    log.addHandler(lines)
    log.setLevel(logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(lines)
        log.setLevel(level)  # loggers remember what they are enabled for until it is set so
        log.propagate = propagate


def staged(progress: Progress) -> Progress:
    """``progress``, with a line in the log where a stage begins, and one with its seconds where it is done."""
    began: dict[str, float] = {}

    def told(stage: str, done: int, total: int) -> None:
        name = stage.partition(MORE)[0]
        if name not in began:
            began[name] = time.monotonic()
            log.debug("%s: begins", f"{name} ({total})" if total else name)
        if total and done >= total and began[name]:
            log.debug("%s: done in %.1f s", name, time.monotonic() - began[name])
            began[name] = 0.0
        progress(stage, done, total)

    return told
