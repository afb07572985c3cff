"""How far a run is, told to a callable that hears which stage stands where, and how long its stages took. The library never prints."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str, int, int], None]
"""``progress(stage, done, total)``, called often; ``done`` never falls within a stage."""
MORE = " · "
"""Stands in a stage before what else is said of it, which may change while it lasts."""


def silent(stage: str, done: int, total: int) -> None:
    """The default: says nothing."""


def amount(size: int) -> str:
    """Bytes in the unit that fits: ``5.1 GB``, ``12.3 MB``, ``800 kB``."""
    unit, named = next(((unit, name) for unit, name in ((1e9, "GB"), (1e6, "MB")) if size >= unit), (1e3, "kB"))
    return f"{size / unit:,.1f} {named}" if unit > 1e3 else f"{size / unit:,.0f} {named}"


@contextmanager
def timed(timings: dict[str, float], name: str) -> Iterator[None]:
    """Add the block's seconds to what ``name`` has taken so far, whether the block finishes or not."""
    began = time.monotonic()
    try:
        yield
    finally:
        timings[name] = timings.get(name, 0.0) + time.monotonic() - began
