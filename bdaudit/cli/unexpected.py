"""What is said of an exception that nothing declares."""

from __future__ import annotations

import logging
import os

MOST_SAID = 1_000
"""Characters of a library's own message that are handed on."""


def debugging() -> bool:
    """Whether the user asked for tracebacks, by ``-v`` or in the environment."""
    return os.environ.get("BDAUDIT_DEBUG", "") not in ("", "0") or logging.getLogger("bdaudit").isEnabledFor(logging.DEBUG)


def unexpected(error: BaseException, how: str = "BDAUDIT_DEBUG=1") -> str:
    """An undeclared exception in one sentence, and ``how`` to see where it came from."""
    try:
        said = str(error)[:MOST_SAID]
    except Exception as second:
        said = f"its message cannot be told ({type(second).__name__})"
    return f"{type(error).__name__}: {said}" + ("" if debugging() else f" ({how} shows where)")
