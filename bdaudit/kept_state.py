"""What an interrupted run leaves for the next one: a folder of safetensors and JSON, each file whole or not there.

A folder belongs to one run, told by its key: the same settings on the same model. Knows nothing of what is kept.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from bdaudit import state_home, state_lock
from bdaudit.errors import BdauditError, UsageError, first_line
from bdaudit.state_lock import LOCK
from bdaudit.targets import SUFFIX, whole
from bdaudit.tensor_file import open_tensors
from bdaudit.untrusted.open_file import json_of, read_json

log = logging.getLogger(__name__)

RUN = "run.json"
_NOTES = "notes"
LIMITS = (1 << 28, 1 << 24)
"""Bytes, and commas plus brackets, of a file of JSON."""


class State:
    """One run's folder; without a folder nothing is kept and nothing is found."""

    def __init__(self, folder: Path | None, key: str, *, stays: bool = False) -> None:
        """The folder is made, and held until the run's report is delivered; it ``stays`` after that, or goes.

        In the user's cache, where nobody asked for it, another run's state gives way, and a disk that refuses ends no run.

        Raises:
            UsageError: it holds another run's state, or something that is none; or another run is at work there.
        """
        self.folder, self.key, self.stays = folder, key, stays
        self._full = False
        if folder is not None:
            if state_home.is_kept_here(folder) and _of_another(folder, key):
                state_lock.hold(folder)
                self._empty()
            _check_free(folder, key)
            state_lock.hold(folder)
            _check_free(folder, key)  # again: nobody can write there any more

    def write_json(self, name: str, value: Any) -> None:
        """Keep a JSON value, dataclasses in it as objects, in place of an older one."""
        if self.folder is not None:
            self._keep(lambda folder: _write_json(folder / f"kept-{name}.json", value))

    def read_json(self, name: str, kind: Any = Any) -> Any:
        """What was kept, or None. ``kind`` is its type as annotations write it: what does not fit it was not kept by us.

        Raises:
            UsageError: it is damaged.
        """
        path = self._there(f"kept-{name}.json")
        if path is None:
            return None
        value = _read_json(path)
        with self.fitting(path.name):
            return _adapter(kind).validate_python(value)

    def has(self, name: str) -> bool:
        """Whether a JSON value of that name was kept."""
        return self._there(f"kept-{name}.json") is not None

    def write_tensors(self, name: str, tensors: Mapping[str, Tensor], notes: Any) -> None:
        """Keep named tensors and, in the same file, a JSON value, in place of older ones."""
        if self.folder is not None:
            held = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
            metadata = {_NOTES: json.dumps(notes, allow_nan=False)}
            file = f"kept-{name}.safetensors"
            self._keep(lambda folder: _whole(folder / file, lambda path: save_file(held, path, metadata=metadata)))

    def read_tensors(self, name: str, kind: Any = Any) -> tuple[dict[str, Tensor], Any] | None:
        """The tensors, on the CPU, none with NaN in it, and the JSON value of ``kind`` beside them; or None.

        Raises:
            UsageError: the file is damaged.
        """
        path = self._there(f"kept-{name}.safetensors")
        if path is None:
            return None
        with _reading(path), open_tensors(path, path.name, error=ValueError, follow=False) as file:
            said = json_of(file.header.metadata[_NOTES].encode("utf-8", "surrogatepass"), _NOTES, LIMITS[1], error=ValueError)
            notes = _adapter(kind).validate_python(said)
            tensors, _ = file.load()
            if any(bool(tensor.isnan().any()) for tensor in tensors.values() if tensor.is_floating_point()):
                raise ValueError("a tensor holds NaN")
            return tensors, notes

    @contextlib.contextmanager
    def fitting(self, name: str = "what was kept") -> Iterator[None]:
        """A block that makes something of what was kept; whatever does not fit is told as damage."""
        try:
            yield
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, AssertionError) as error:
            raise UsageError(_damaged(self.folder, name, error)) from error

    def finish(self) -> None:
        """Nothing of it is needed any more once the run's report is delivered, unless it stays."""
        if self.folder is not None and not self.stays:
            state_lock.when_delivered(self.folder, self.remove)

    def remove(self) -> None:
        """Forget everything; the folder goes as well where nothing else lies in it."""
        if self.folder is None or not (self.folder / RUN).is_file():
            return
        with contextlib.suppress(OSError):
            self._empty()
            state_lock.release(self.folder)
            self.folder.rmdir()

    def _empty(self) -> None:
        assert self.folder is not None
        for path in (*self.folder.glob("kept-*"), *self.folder.glob(f".*{SUFFIX}"), self.folder / RUN):
            path.unlink()

    def _keep(self, write: Callable[[Path], None]) -> None:
        """Write something into the folder; in the user's cache what cannot be kept is told once, and is not."""
        assert self.folder is not None
        try:
            if not self._full:
                write(self._ready())
        except BdauditError as error:
            if not state_home.is_kept_here(self.folder):
                raise
            self._full = True
            log.warning("nothing more is kept of this run, which goes on: %s", error)

    def _there(self, name: str) -> Path | None:
        path = None if self.folder is None else self.folder / name
        return path if path is not None and path.is_file() else None

    def _ready(self) -> Path:
        assert self.folder is not None
        state_lock.hold(self.folder)
        if not (self.folder / RUN).is_file():
            _write_json(self.folder / RUN, {"key": self.key})
        return self.folder


def check_shapes(kept: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raises ``ValueError`` unless every wanted tensor was kept, in its shape; a copy would stretch one that is too small."""
    for name, tensor in wanted.items():
        if name not in kept or kept[name].shape != tensor.shape:
            raise ValueError(f"{name} is missing or of another shape")


def _check_free(folder: Path, key: str) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UsageError(f"--state {folder} is a file; expected a folder, or a name that is free")
    if not (folder / RUN).is_file():
        if any(path.name != LOCK and not path.name.endswith(SUFFIX) for path in folder.iterdir()):
            raise UsageError(f"--state {folder} holds something that no run left there; name another folder")
        return
    run = _read_json(folder / RUN)
    if not isinstance(run, dict) or run.get("key") != key:
        said = "holds the state of another run: another model, other settings or another version"
        raise UsageError(f"--state {folder} {said}; repeat that run's command, name another folder, or remove this one")


def _of_another(folder: Path, key: str) -> bool:
    """Whether it holds a state that is not ``key``'s, or cannot be read at all."""
    if not (folder / RUN).is_file():
        return False
    try:
        run = _read_json(folder / RUN)
    except UsageError:
        return True
    return not isinstance(run, dict) or run.get("key") != key


def _write_json(path: Path, value: Any) -> None:
    data = json.dumps(value, allow_nan=False, default=asdict).encode("ascii")
    _whole(path, lambda target: target.write_bytes(data))


def _whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write under another name in the same folder, flush to the disk, rename."""
    try:
        with whole(path) as partial:
            write(partial)
    except (OSError, SafetensorError) as error:
        raise BdauditError(
            f"what the run keeps in {path.parent}: cannot write {path.name}: {error}; make room, and repeat the command"
        ) from error


def _read_json(path: Path) -> Any:
    with _reading(path):
        return read_json(path, path.name, LIMITS, error=ValueError, follow=False)


@functools.cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _damaged(folder: Path | None, name: str, error: Exception) -> str:
    return f"--state {folder}: {name} is damaged ({first_line(error)}); remove the folder to begin anew"


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (BdauditError, ValueError, KeyError) as error:
        raise UsageError(_damaged(path.parent, path.name, error)) from error
