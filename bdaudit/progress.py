"""Progress as an argument: a callable that hears which stage stands where. The library never prints."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""``progress(stage, done, total)``, called often; ``done`` never falls within a stage."""


def silent(stage: str, done: int, total: int) -> None:
    """The default: says nothing."""
