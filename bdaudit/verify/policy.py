"""A team's bounds in a file of its own: TOML with one table, ``[verify]``, whose keys are those of the flags: bounds, and ``evidence``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import get_args

from bdaudit.config import Evidence
from bdaudit.errors import UsageError
from bdaudit.untrusted.open_file import read_toml

EVIDENCE = get_args(Evidence)
"""What a policy can say of ``evidence``; a report belongs to one model, so that it is a flag's alone."""
BOUNDS = ("max_asr", "min_clip_score", "max_kid", "max_fid", "min_clip_ratio", "max_distance")
"""What a policy can set; ``VerifyConfig`` says what each is."""


def read_policy(path: Path) -> dict[str, float | str]:
    """The bounds in ``path``, and what evidence of a trigger it asks for.

    Raises:
        UsageError: no TOML, a key that is not known (a bound with a slip in its name would gate nothing), or a value that is no figure.
    """
    document = read_toml(path, f"--policy {path}")
    table = document.get("verify")
    if not isinstance(table, dict) or set(document) != {"verify"}:
        raise UsageError(f"--policy {path}: expected one table, [verify]; got {', '.join(map(repr, document)) or 'nothing'}")
    unknown, known = sorted(set(table) - {*BOUNDS, "evidence"}), ", ".join((*BOUNDS, "evidence"))
    if unknown or not table:
        raise UsageError(f"--policy {path}: unknown {', '.join(map(repr, unknown)) or 'nothing'}; expected some of {known}")
    return {name: _evidence(path, value) if name == "evidence" else _figure(path, name, value) for name, value in table.items()}


def _evidence(path: Path, value: object) -> str:
    if value not in EVIDENCE or not isinstance(value, str):
        raise UsageError(f"--policy {path}: evidence is {value!r}; expected {' or '.join(map(repr, EVIDENCE))}")
    return value


def _figure(path: Path, name: str, value: object) -> float:
    try:
        figure = math.nan if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
    except OverflowError:  # an integer of more than 308 digits
        figure = math.inf
    if not math.isfinite(figure):
        raise UsageError(f"--policy {path}: {name} is {value!r}; expected a finite number")
    return figure
