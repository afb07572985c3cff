"""Where a scan's seed comes from when nobody gives one: nobody who made the model can know beforehand where it will be looked at."""

from __future__ import annotations

import secrets
from pathlib import Path

from bdaudit.errors import UsageError
from bdaudit.untrusted.open_file import read_json

KEPT = "kept-seed.json"
"""Where a state folder has it; with --variant all, each variant's."""
_LIMITS = (64, 8)


def fresh_seed(state: Path | None) -> int:
    """The seed of the run that ``state`` holds the beginning of, else one from the system; raises as ``kept_seed``."""
    kept = kept_seed(state)
    return secrets.randbelow(2**31) if kept is None else kept


def kept_seed(state: Path | None) -> int | None:
    """The seed of the run that ``state`` holds the beginning of; None where there is none.

    Raises:
        UsageError: what is kept there is no seed.
    """
    places = (KEPT, f"variant-*/{KEPT}")  # and no deeper: a model that lies below must not say where it is looked at
    kept = sorted(path for place in places for path in state.glob(place)) if state is not None and state.is_dir() else []
    if not kept:
        return None
    seed = read_json(kept[0], str(kept[0]), _LIMITS, error=UsageError, follow=False)
    if type(seed) is not int or seed < 0:
        raise UsageError(f"--state {state}: {KEPT} holds {seed!r:.40}; expected a seed; name another folder, or remove it")
    return seed
