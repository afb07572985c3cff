"""What an interrupted run leaves for the next one: a folder of safetensors and JSON, each file whole or not there.

A folder belongs to one run, told by its key: the same settings on the same model. Knows nothing of what is kept.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bdaudit.errors import BdauditError, UsageError

RUN = "run.json"
_NOTES = "notes"


class State:
    """One run's folder; without a folder nothing is kept and nothing is found."""

    def __init__(self, folder: Path | None, key: str) -> None:
        """The folder is made by the first write.

        Raises:
            UsageError: it holds another run's state, or something that is none.
        """
        self.folder, self.key = folder, key
        if folder is not None:
            _check_free(folder, key)

    def write_json(self, name: str, value: Any) -> None:
        """Keep a JSON value, in place of an older one."""
        if self.folder is not None:
            _write_json(self._ready() / f"kept-{name}.json", value)

    def read_json(self, name: str) -> Any:
        """What was kept, or None."""
        path = self._there(f"kept-{name}.json")
        return None if path is None else _read_json(path)

    def write_tensors(self, name: str, tensors: Mapping[str, Tensor], notes: Any) -> None:
        """Keep named tensors and, in the same file, a JSON value, in place of older ones."""
        if self.folder is not None:
            whole = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
            metadata = {_NOTES: json.dumps(notes)}
            _whole(self._ready() / f"kept-{name}.safetensors", lambda path: save_file(whole, path, metadata=metadata))

    def read_tensors(self, name: str) -> tuple[dict[str, Tensor], Any] | None:
        """The tensors, on the CPU, and the JSON value beside them; or None."""
        path = self._there(f"kept-{name}.safetensors")
        if path is None:
            return None
        with _reading(path), safe_open(path, framework="pt") as file:
            notes = json.loads(file.metadata()[_NOTES])
            return {key: file.get_tensor(key) for key in file.keys()}, notes  # noqa: SIM118

    def remove(self) -> None:
        """Forget everything; the folder goes as well where nothing else lies in it."""
        if self.folder is None or not (self.folder / RUN).is_file():
            return
        with contextlib.suppress(OSError):
            for path in (*self.folder.glob("kept-*"), *self.folder.glob(".kept-*.partial"), self.folder / RUN):
                path.unlink()
            self.folder.rmdir()

    def _there(self, name: str) -> Path | None:
        path = None if self.folder is None else self.folder / name
        return path if path is not None and path.is_file() else None

    def _ready(self) -> Path:
        assert self.folder is not None
        if not (self.folder / RUN).is_file():
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise BdauditError(f"--state {self.folder}: cannot make the folder: {error}") from error
            _write_json(self.folder / RUN, {"key": self.key})
        return self.folder


def _check_free(folder: Path, key: str) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UsageError(f"--state {folder} is a file; expected a folder, or a name that is free")
    if not (folder / RUN).is_file():
        if any(not path.name.endswith(".partial") for path in folder.iterdir()):
            raise UsageError(f"--state {folder} holds something that no run left there; name another folder")
        return
    run = _read_json(folder / RUN)
    if not isinstance(run, dict) or run.get("key") != key:
        said = "holds the state of another run: another model, other settings or another version"
        raise UsageError(f"--state {folder} {said}; repeat that run's command, name another folder, or remove this one")


def _write_json(path: Path, value: Any) -> None:
    data = json.dumps(value, allow_nan=False).encode("ascii")
    _whole(path, lambda target: target.write_bytes(data))


def _whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write under another name in the same folder, flush to the disk, rename."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        write(partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        raise BdauditError(f"--state {path.parent}: cannot write {path.name}: {error}") from error


def _read_json(path: Path) -> Any:
    with _reading(path):
        return json.loads(path.read_bytes())


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        raise UsageError(f"--state {path.parent}: {path.name} is damaged ({error}); remove the folder to begin anew") from error
