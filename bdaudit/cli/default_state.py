"""A run's state where nobody named a place for one: a folder of the user's cache, told by the command that is typed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TypeVar

from bdaudit import state_home
from bdaudit.cli.checks import check
from bdaudit.cli.seeds import fresh_seed, kept_seed
from bdaudit.config import RunConfig
from bdaudit.errors import BdauditError
from bdaudit.measure.envelope import settings
from bdaudit.untrusted.hub_cache import cache_root

ConfigT = TypeVar("ConfigT", bound=RunConfig)
Places = Sequence[tuple[str, Path]]


def wanted(config: RunConfig) -> bool:
    """Whether a run could go on from a state, and has none."""
    return "state" in (field.name for field in fields(config)) and not (getattr(config, "state", None) or getattr(config, "keep", None))


def place_of(command: str, config: RunConfig, *, drawn: bool) -> Path:
    """The folder of a command: of what was typed, in which folder; of a seed that was ``drawn``, whatever it is, and of any ``--workers``.

    What lies at the paths is not looked at: what is kept names the model by its digest, and of another one it does not count.

    Raises:
        BdauditError: this user has no place for a cache.
    """
    left_out = ("seed", "workers") if drawn else ("workers",)
    asked = {name: value for name, value in settings(config).items() if name not in left_out}
    named = json.dumps([command, os.getcwd(), asked], sort_keys=True)
    return state_home.home() / f"{command}-{hashlib.sha256(named.encode('ascii')).hexdigest()[:24]}"


def _place(command: str, config: RunConfig, *, drawn: bool) -> Path:
    """The same, or the folder of the run that drew the very seed that is typed now, as its report says how to repeat it."""
    own, other = (place_of(command, config, drawn=each) for each in (drawn, True))
    return other if not drawn and not own.is_dir() and kept_seed(other) == config.seed else own


def planned(command: str, config: RunConfig, *, drawn: bool) -> Path | None:
    """The folder that a run would take; none where it has a place for its state, keeps none, or the user has no cache."""
    with contextlib.suppress(BdauditError, OSError):
        return place_of(command, config, drawn=drawn) if wanted(config) else None
    return None


def with_state(command: str, config: ConfigT, opened: Places, written: Places, *, drawn: bool) -> tuple[ConfigT, str]:
    """The config with its folder, held for this run, and the seed that is kept there; or as it was, and why there is none."""
    try:
        folder = _place(command, config, drawn=drawn)
        kept = replace(config, state=folder)  # type: ignore[call-arg]
        check(kept, opened, written)
        if folder.resolve().is_relative_to(os.path.realpath(cache_root())):
            raise BdauditError(f"{folder} lies in the hub's cache, which is never written")
        state_home.take(folder)
        return (replace(kept, seed=fresh_seed(folder)) if drawn else kept), ""
    except (BdauditError, OSError) as error:
        return config, str(error)
