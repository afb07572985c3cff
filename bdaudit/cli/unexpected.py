"""What is said of an exception that nothing declares."""

from __future__ import annotations

import os

MOST_SAID = 1_000
"""Characters of a library's own message that are handed on."""


def debugging() -> bool:
    """Whether the user asked for tracebacks."""
    return os.environ.get("BDAUDIT_DEBUG", "") not in ("", "0")


def unexpected(error: BaseException) -> str:
    """An undeclared exception in one sentence."""
    try:
        said = str(error)[:MOST_SAID]
    except Exception as second:
        said = f"its message cannot be told ({type(second).__name__})"
    return f"{type(error).__name__}: {said}" + ("" if debugging() else " (BDAUDIT_DEBUG=1 shows where)")
