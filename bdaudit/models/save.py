"""A repaired model on disk: a copy of the directory in which only the changed tensors differ. Whole, or not there.

What is copied is what was inspected, told by its hash while it is copied: a file exchanged since then ends the run. Changed tensors are
added to that copy, and the finished copy is inspected as any model is before it gets its name.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from bdaudit import targets
from bdaudit.errors import BdauditError, InconclusiveError, RefusedError
from bdaudit.tensor_file import open_tensors
from bdaudit.untrusted import layouts
from bdaudit.untrusted.inspect import File, Inspection, inspect
from bdaudit.untrusted.tree import Reader, shown

_BLOCK = 1 << 20
"""Bytes that are copied at once."""


_UNWRITTEN = ("F8_E4M3", "F8_E5M2")
"""Three bits of a number, or two, hold no repair."""

Differences = Mapping[str, Mapping[str, Tensor]]
"""Component → tensor name → after − before, float32."""


def check_writable(inspection: Inspection, out: Path | None, extra: str) -> None:
    """What would stop a result of ``inspection`` at its end, told before the work; ``extra`` is a file that is to lie in it.

    Raises:
        BdauditError: the disk has no room for it, a folder is in the way of ``extra``, or weights are of a kind that no sum is written in.
    """
    if inspection.pieces:
        raise InconclusiveError(f"{shown(inspection.path)} is a single file, whose repair is not written yet; repair it as a directory")
    if any(file.path.startswith(f"{extra}/") for file in inspection.copied):
        said = f"{shown(inspection.path)} holds a folder {extra}, where the record of the result belongs"
        raise BdauditError(f"{said}; take it out of a copy of the model, and name that")
    changed = [name for part in inspection.layout.heeding for name in inspection.weights[part] if name.endswith(".safetensors")]
    for path in (Path(inspection.path) / name for name in changed):
        with open_tensors(path, shown(path), error=BdauditError) as file:
            short = [name for name, info in file.header.tensors.items() if info.dtype in _UNWRITTEN]
        if short:
            said = f"{shown(path)} holds {shown(short[0])} in {file.header.tensors[short[0]].dtype}, in which no repair can be written back"
            raise BdauditError(f"{said}; save the model in float16 or float32 first, and name that")
    if out is not None:
        targets.check_room(out.parent, sum(file.bytes for file in inspection.copied), f"--out {out}")


def write_model(inspection: Inspection, out: Path, differences: Differences, extra: Mapping[str, bytes]) -> None:
    """Write ``inspection``'s directory to ``out`` with ``differences`` added to its tensors.

    Only ``inspection.copied`` files are: no code, and no weights that were not loaded, so that none keeps what was not looked at; what
    was loaded from a pickle becomes safetensors. Each tensor keeps its file and its dtype. ``extra`` are further files, by relative name.

    Raises:
        BdauditError: a file is not the one that was inspected any more; a tensor that no file of its component holds, or holds
            in another shape or kind; a sum that is not finite; the copy does not pass the inspection; the disk is full or read-only.
    """
    try:
        staging = targets.staging(out)
    except OSError as error:
        raise BdauditError(f"cannot write beside {out}: {error}") from error
    try:
        reader = Reader(Path(inspection.path).resolve(), {record.path: record.bytes for record in inspection.files})
        for record in inspection.copied:
            _copy(reader, record, staging)
            _rewrite(staging, record.path, differences)
        _check_all_written(staging, differences)
        for name, content in extra.items():
            (staging / name).write_bytes(content)
        _check_copy(staging)
        staging.chmod(0o755)
        if out.exists():
            out.rmdir()
        os.rename(staging, out)
    except OSError as error:
        raise BdauditError(f"cannot write {out}: {error}; nothing was left there") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _copy(reader: Reader, record: File, staging: Path) -> None:
    """One file into ``staging``; what was exchanged since the inspection, by whatever means, has another hash."""
    target = staging / record.path
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, left = hashlib.sha256(), record.bytes
    try:
        source = reader.open(record.path)
    except RefusedError as error:  # it was none when it was inspected
        raise BdauditError(_changed(record.path, str(error))) from error
    with source, target.open("xb") as copy:
        while left >= 0 and (block := source.read(_BLOCK)):
            digest.update(block)
            copy.write(block)
            left -= len(block)
    if digest.hexdigest() != record.sha256:
        raise BdauditError(_changed(record.path, "its SHA-256 is another"))


def _changed(path: str, how: str) -> str:
    said = f"{shown(path)} is not the file any more that was inspected when the run began ({how})"
    return f"{said}; nothing was written; find out who writes to the model, and run again"


def _check_copy(staging: Path) -> None:
    """Raises ``BdauditError`` unless the copy passes what every model must before it is loaded."""
    try:
        inspect(staging)
    except BdauditError as error:
        raise BdauditError(f"the copy that was about to be written does not pass the inspection: {error}; nothing was written") from error


def _rewrite(staging: Path, relative: str, differences: Differences) -> None:
    """The copied file with its component's differences, in its place; as safetensors if it was none. All others stay as they are."""
    copied = target = staging / relative
    component = relative.split("/")[0]
    part = layouts.models().get(component)
    if part and relative.endswith(".bin"):  # tensors that --allow-pickle loaded; no pickle is written
        target = copied.with_name(copied.stem.replace(part.pickled, part.stem) + ".safetensors")
    elif part is None or component not in differences or not relative.endswith(".safetensors"):
        return
    tensors, metadata = _held(copied)
    for name, old in tensors.items():
        own = differences.get(component, {})
        difference = own.get(name, own.get(part.canonical(name)))
        if difference is not None:
            tensors[name] = _added(f"{component}: {name}", old, difference)
    copied.unlink()  # and never written over: its tensors may be mapped into memory
    save_file(tensors, target, metadata=metadata)
    target.chmod(0o644)  # safetensors makes files that no one else can read


def _held(path: Path) -> tuple[dict[str, Tensor], dict[str, str] | None]:
    """A weights file's tensors, each with bytes of its own, and its metadata."""
    if path.suffix == ".bin":
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        return {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in loaded.items()}, {"format": "pt"}
    with open_tensors(path, shown(path), error=BdauditError) as file:
        return file.load()[0], file.header.metadata or None


def _added(name: str, old: Tensor, difference: Tensor) -> Tensor:
    if difference.shape != old.shape or not old.is_floating_point():
        said = f"{name} is {old.dtype} {list(old.shape)}, the difference is {list(difference.shape)}"
        raise BdauditError(f"{said}; they do not belong together")
    new = (old.to(torch.promote_types(old.dtype, torch.float32)) + difference.detach().cpu()).to(old.dtype)
    if not bool(torch.isfinite(new).all()):
        raise BdauditError(f"{name} is not finite once the difference is added")
    return new.contiguous()


def _check_all_written(staging: Path, differences: Differences) -> None:
    for component, tensors in differences.items():
        held, canonical = set[str](), layouts.models()[component].canonical
        for path in (staging / component).glob("*.safetensors"):
            with open_tensors(path, shown(path), error=BdauditError) as file:
                held.update(name for stored in file.header.tensors for name in (stored, canonical(stored)))
        missing = sorted(set(tensors) - held)
        if missing:
            said = f"no weights file holds {missing[0]} ({len(missing)} tensors in all)"
            raise BdauditError(f"{component}: {said}; the model's layout is not supported")
