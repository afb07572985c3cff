"""What is said of an exception that nothing declares."""

from __future__ import annotations

import os


def debugging() -> bool:
    """Whether the user asked for tracebacks."""
    return os.environ.get("BDAUDIT_DEBUG", "") not in ("", "0")


def unexpected(error: BaseException) -> str:
    """An undeclared exception in one sentence."""
    return f"{type(error).__name__}: {error}" + ("" if debugging() else " (BDAUDIT_DEBUG=1 shows where)")
