"""Where an adapter lies, and the settings beside it: a file, or the directory that peft or diffusers writes. Knows no tensors."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from bdaudit.errors import RefusedError, UsageError
from bdaudit.untrusted.formats.addition import ADAPTERS, SETTINGS
from bdaudit.untrusted.hub_snapshot import snapshot_of
from bdaudit.untrusted.inspect import File
from bdaudit.untrusted.tree import Reader, shown


def is_adapter_directory(path: Path) -> bool:
    """Whether it is a directory that holds an adapter and no pipeline."""
    return os.path.isdir(path) and not os.path.exists(path / "model_index.json") and any(os.path.isfile(path / name) for name in ADAPTERS)


def adapter_file(path: Path) -> Path:
    """The weights file that ``path`` names: the file itself, or the one in an adapter's directory.

    Raises:
        UsageError: a directory with none of them, or with both.
        RefusedError: it is a link in a directory that leads out of it, and not as the hub's cache has it.
    """
    if not os.path.isdir(path):
        return path
    there = [path / name for name in ADAPTERS if os.path.isfile(path / name)]
    if len(there) == 1:
        _check_inside(path, there[0].name)
        return there[0]
    got = "holds both of" if there else "holds none of"
    raise UsageError(
        f"{shown(path)} {got} {' and '.join(ADAPTERS)}; name the adapter's .safetensors file itself (a pickle is never opened)"
    )


def _check_inside(folder: Path, name: str) -> None:
    """Raises ``RefusedError`` for a link that leads out of an adapter's directory; who names a file means what lies there."""
    if not os.path.islink(folder / name):
        return
    root = folder.resolve()
    snapshot = snapshot_of(root)
    inside = os.path.realpath(root / name).startswith(f"{root}{os.sep}")
    where = snapshot.look(name, os.readlink(root / name))[1] if snapshot else "" if inside else "out of the directory"
    if where:
        raise RefusedError([f"{shown(folder / name)} is a link that leads {where}; copy the adapter with `cp -rL` and name the copy"])


def settings_beside(path: Path) -> tuple[dict[str, Any], File] | None:
    """peft's settings beside a weights file, and their digest; None where there are none.

    Raises:
        RefusedError: they are a link, or no regular file.
        BdauditError: too large, or no JSON object.
    """
    beside = path.with_name(SETTINGS)
    try:
        found = beside.lstat()
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        kind = "a link" if stat.S_ISLNK(found.st_mode) else "no regular file"
        raise RefusedError([f"{shown(beside)} is {kind}, which is not followed; copy the adapter with `cp -rL` and name the copy"])
    reader = Reader(beside.parent.resolve(), {SETTINGS: found.st_size})
    settings = reader.json(SETTINGS)
    return settings, File(path=str(beside), bytes=len(reader.checked[SETTINGS]), sha256=reader.sha256(SETTINGS))
