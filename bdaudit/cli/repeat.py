"""The command line that makes a run again: as it was typed, with what it took from elsewhere."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path


def repeated(arguments: Sequence[str], *, seed: int | None, settings: Path | None) -> str:
    """``bdaudit`` and its ``arguments``; ``seed`` is one that nobody typed, ``settings`` a file that the environment may have named."""
    named = any(each == "--settings" or each.startswith("--settings=") for each in arguments)
    more = [] if settings is None or named else ["--settings", str(settings)]
    return shlex.join(["bdaudit", *arguments, *more, *([] if seed is None else ["--seed", str(seed)])])
