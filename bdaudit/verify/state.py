"""Pictures and features kept on disk between runs: a second run with other bounds draws nothing, an interrupted one goes on.

An entry is one tensor in a safetensors file of its own, named by what made it. A file that is cut off, altered or foreign does not
count as kept. The checksum is against accidents: who may write to the directory may write whole entries, so it deserves the report's care.
"""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from bdaudit import state_home
from bdaudit.errors import BdauditError, UsageError
from bdaudit.measure.envelope import versions
from bdaudit.state_lock import LOCK, hold
from bdaudit.targets import SUFFIX, write_whole
from bdaudit.tensor_file import open_tensors
from bdaudit.untrusted.fingerprint import lengthened

log = logging.getLogger(__name__)

MARKER = "bdaudit-verify-state"
"""A file that says whose directory it is."""
_LARGEST = 1 << 30
_NOTE = "Pictures and features that `bdaudit verify` keeps between runs. Safe to delete; as much to be trusted as its reports.\n"


def open_state(root: Path) -> Path:
    """Make ``root`` a state directory, or check that it is one, and hold it for this run; returns it.

    Raises:
        UsageError: it holds other things, or is no directory, or another run is at work there.
        BdauditError: it cannot be written.
    """
    try:
        if root.exists() and not root.is_dir():
            raise UsageError(f"--state {root}: expected a folder; got a file")
        others = (path.name for path in (root.iterdir() if root.is_dir() else ()) if path.name != LOCK and not path.name.endswith(SUFFIX))
        if any(others) and not (root / MARKER).is_file():
            raise UsageError(f"--state {root} holds other things than verify's pictures; name an empty or a new folder")
        hold(root)
        (root / MARKER).write_text(_NOTE, encoding="utf-8")
    except OSError as error:
        raise BdauditError(f"--state {root} cannot be written: {error}") from error
    return root


def fingerprint(*parts: object) -> str:
    """SHA-256 over the parts, in hex; no two lists of parts run together."""
    return hashlib.sha256(lengthened(str(part).encode("utf-8") for part in parts)).hexdigest()


class Shelf:
    """The entries of one kind, made by one model under one group of settings; without a folder it keeps nothing."""

    def __init__(self, root: Path | None, *made_by: object) -> None:
        """``made_by`` is all that an entry follows from besides its own key.

        Raises:
            UsageError: the place in ``root`` is a link.
        """
        self._in_cache = root is not None and state_home.is_kept_here(root)
        self._folder = None if root is None else root / fingerprint(*made_by, *versions().values())[:32]
        self.damaged = 0
        """Entries that were there, and not whole."""
        self._full = False
        if self._folder is not None and self._folder.is_symlink():
            raise UsageError(f"--state: {self._folder} is a link, which verify does not follow; delete it")

    def get(self, *key: object) -> Tensor | None:
        """The entry, float32, or None where there is no whole one."""
        path = self._path(key)
        if path is None or not os.path.lexists(path):
            return None
        found = _read(path, fingerprint(*key))
        self.damaged += found is None
        return found

    def put(self, tensor: Tensor, *key: object) -> None:
        """Keep an entry, whole or not at all.

        Raises:
            BdauditError: the disk refuses, of a folder that somebody asked for; of one in the user's cache that is told, and no more.
        """
        path = self._path(key)
        if path is None or self._full:
            return
        data = save({"tensor": tensor.float().contiguous()}, {"key": fingerprint(*key), "sha256": _digest(tensor.float())})
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, data, flushed=False)
        except OSError as error:
            if not self._in_cache:
                raise BdauditError(f"--state: {path.parent} cannot be written: {error}; give it room, or leave --state out") from error
            self._full = True
            log.warning("pictures are not kept any more, and the run goes on: %s", error)

    def _path(self, key: tuple[object, ...]) -> Path | None:
        name = fingerprint(*key)
        return None if self._folder is None else self._folder / name[:2] / f"{name}.safetensors"


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(str(tuple(tensor.shape)).encode() + tensor.contiguous().numpy().tobytes()).hexdigest()


def _read(path: Path, key: str) -> Tensor | None:
    """The tensor in ``path``; None where the file is not one that ``Shelf.put`` wrote for ``key``."""
    try:
        with open_tensors(path, str(path), follow=False) as file:
            said, info = file.header.metadata, file.header.tensors.get("tensor")
            if said.get("key") != key or info is None or info.dtype != "F32" or len(file.header.tensors) > 1 or file.size > _LARGEST:
                return None
            tensor = file.load()[0]["tensor"]
    except BdauditError:
        return None
    if said.get("sha256") != _digest(tensor):
        return None
    return tensor if bool(tensor.isfinite().all()) else None
