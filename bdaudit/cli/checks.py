"""What a run's settings must not be together: places that are read and written at once, and what a model's maker would decide."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from bdaudit.cli.values import need_name
from bdaudit.config import RunConfig
from bdaudit.config.flag import flags
from bdaudit.config.run import WHOLE, need_apart
from bdaudit.errors import UsageError

Places = Sequence[tuple[str, Path]]
"""Flags and their paths."""


def check(config: RunConfig, opened: Places, reports: Places) -> None:
    """Raises ``UsageError`` where a run would write over what it reads, let its model's maker judge it, or gate on no figure.

    ``opened`` are the files and folders that it reads, models aside; ``reports`` are further files that it writes.
    """
    written = (*reports, *config.written)
    for flag, path in (*_clips(config), *written):
        need_name(str(path), flag)
    need_apart(written)
    _check_outside(config, written)
    _check_unread(opened, written)
    _check_own(config, opened)
    _check_finite(config)


def clip_of(config: RunConfig) -> list[tuple[str, Path]]:
    """``--clip`` and its place, where that is a folder."""
    return [(flag, path) for flag, path in _clips(config) if flag == "--clip"]


def _clips(config: RunConfig) -> list[tuple[str, Path]]:
    named = [(flag, str(getattr(config, field, ""))) for flag, field in (("--clip", "clip"), ("--vision", "vision"))]
    return [(flag, Path(clip.removeprefix("local-dir:"))) for flag, clip in named if clip.startswith("local-dir:")]


def _check_outside(config: RunConfig, written: Places) -> None:
    """Raises ``UsageError`` where a path that would be written lies in a model that is read, or in its folder of the hub's cache."""
    from bdaudit.untrusted.hub_cache import cache_root
    from bdaudit.untrusted.hub_snapshot import home_of

    for directory in config.models:
        home, cache = home_of(directory), Path(os.path.realpath(cache_root()))
        of = "the model" + " directory" * directory.is_dir() if home == directory.resolve() else f"the cache's {home.name}"
        for flag, path in written:
            if path.resolve().is_relative_to(home):
                raise UsageError(f"{flag} {path} lies in {of}, which is never written; name a place outside it")
            if home.is_relative_to(cache) and path.resolve().is_relative_to(cache):
                raise UsageError(f"{flag} {path} lies in the hub's cache, which is never written; name a place outside it")


_OWN = {
    "--settings": "keep your settings in a file of your own",
    "--accept": "write the entries to a file of your own",
    "--clip": "name a CLIP that the maker did not touch",
}


def _check_own(config: RunConfig, opened: Places) -> None:
    """Raises ``UsageError`` where what lets findings through lies in a model or an adapter, by its name or at a link's end: their makers
    would let their own backdoors through."""
    from bdaudit.models.adapter_file import is_adapter_directory
    from bdaudit.untrusted.hub_snapshot import home_of

    folders = [path.parent for *_, path, _ in getattr(config, "adapters", ())]
    folders += [path.parent for path, _ in getattr(config, "embeddings", ())]
    adapters = [home_of(folder) for folder in folders if is_adapter_directory(folder) or home_of(folder) != folder.resolve()]
    folders = [path for flag, path in (*opened, *clip_of(config)) if path.is_dir()]
    for flag, path in (*(each for each in opened if each[0] in ("--accept", "--settings")), *clip_of(config)):
        others = map(home_of, folders) if flag == "--settings" else ()
        for home in (*map(home_of, config.models), *adapters, *others):
            if any(place.is_relative_to(home) for place in (path.resolve(), Path(os.path.abspath(path)))):
                raise UsageError(f"{flag} {path} lies in {home}, whose maker wrote it; {_OWN[flag]}")


def _check_unread(opened: Places, written: Places) -> None:
    """Raises ``UsageError`` where a path that would be written is one that is read, or one of the two lies in the other.

    Beside the pictures of ``--real-images`` there is room: nothing but pictures is read there.
    """
    for (reads, source), (flag, path) in product(opened, written):
        one, other = path.resolve(), source.resolve()
        within = one.is_relative_to(other) and reads != "--real-images"
        if one == other or within or (flag in WHOLE and other.is_relative_to(one)):
            raise UsageError(f"{flag} {path} would write over {reads} {source}, which the run reads; name another place")


def _check_finite(config: RunConfig) -> None:
    """Raises ``UsageError`` where a figure of ``config`` is NaN or infinite: a bound of NaN would gate nothing."""
    for name, flag in flags(type(config)).items():
        value = getattr(config, name)
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"{flag.name} is {value}; expected a finite number")
