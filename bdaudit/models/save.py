"""A repaired model on disk: a copy of the directory in which only the changed tensors differ. Whole, or not there.

What is copied is what was inspected, told by its hash while it is copied: a file exchanged since then ends the run. Changed tensors are
added to that copy, and the finished copy is inspected as any model is before it gets its name.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from bdaudit import targets
from bdaudit.errors import BdauditError, InconclusiveError, RefusedError
from bdaudit.models.rounding import Differences
from bdaudit.models.save_file import leave_out, overwrite
from bdaudit.tensor_file import open_tensors
from bdaudit.untrusted.inspect import File, Inspection, inspect
from bdaudit.untrusted.tree import shown

_BLOCK = 1 << 20
"""Bytes that are copied at once."""


_UNWRITTEN = ("F8_E4M3", "F8_E5M2")
"""Types in which stock loaders open no directory for use: three bits of a number, or two, hold no repair."""


def check_writable(inspection: Inspection, out: Path | None, extra: str, parts: Collection[str] = ()) -> None:
    """What would stop a result of ``inspection`` at its end, told before the work; ``extra`` is a file that is to lie in it, ``parts`` are
    those that alone may be changed, where that is known.

    Raises:
        BdauditError: the disk has no room for it, a folder is in the way of ``extra``, or weights are of a kind that no sum is written in.
        InconclusiveError: a part of a single file lies elsewhere in several files.
    """
    if any(file.path.startswith(f"{extra}/") for file in inspection.copied):
        said = f"{shown(inspection.path)} holds a folder {extra}, where the record of the result belongs"
        raise BdauditError(f"{said}; take it out of a copy of the model, and name that")
    if inspection.pieces:
        _check_parts(inspection, parts or inspection.layout.heeding)
    else:
        _check_kinds(inspection)
    if out is not None:
        targets.check_room(out.parent, sum(file.bytes for file in inspection.copied), f"--out {out}")


def _check_parts(inspection: Inspection, parts: Collection[str]) -> None:
    """Raises ``InconclusiveError`` where a part that a repair may change is not one safetensors file."""
    for part in parts:
        if part not in inspection.pieces and (part in inspection.pickled or len(inspection.weights[part]) > 1):
            said = f"the {part} of --config lies in {len(inspection.weights[part])} files, or a pickle"
            how = f"a repair of it is written beside a single file as one file: name it by --part {part}=FILE"
            raise InconclusiveError(f"{said}; {how}, or repair the denoiser alone, by --component {inspection.layout.heeding[0]}")


def _check_kinds(inspection: Inspection) -> None:
    """Raises ``BdauditError`` for a directory whose weights are of a kind that no sum is written in."""
    for part in inspection.layout.heeding:
        short = [name for name, kind in inspection.kinds[part].items() if kind in _UNWRITTEN]
        if short:
            where = shown(Path(inspection.path) / inspection.weights[part][0])
            said = f"{where} holds {shown(short[0])} in {inspection.kinds[part][short[0]]}, in which no repair can be written back"
            raise BdauditError(f"{said}; save the model in float16 or float32 first, and name that")


def write_model(inspection: Inspection, out: Path, differences: Differences, extra: Mapping[str, bytes]) -> None:
    """Write ``inspection``'s directory to ``out`` with ``differences`` added to its tensors, or of single files those that change.

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
        changed = {file for part in differences for file in inspection.weights[part]}
        for record in inspection.copied:
            if not inspection.pieces or record.path in changed:
                _copy(inspection, record, staging)
                _change(inspection, staging, record.path, differences)
        _check_all_written(inspection, staging, differences)
        for name, content in extra.items():
            (staging / name).write_bytes(content)
        _check_copy(inspection, staging)
        staging.chmod(0o755)
        if out.exists():
            out.rmdir()
        os.rename(staging, out)
    except OSError as error:
        raise BdauditError(f"cannot write {out}: {error}; nothing was left there") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def result_of(inspection: Inspection, out: Path) -> Inspection:
    """What was made of ``inspection`` in ``out``, inspected: of single files those that were written, and the others where they lie.

    Raises:
        BdauditError: as ``inspect``.
    """
    if not inspection.pieces:
        return inspect(out, trusted=inspection.trusted)
    model, parts = written_files(inspection, out)
    return inspect(model, config=inspection.config, parts=parts)


def written_files(inspection: Inspection, out: Path) -> tuple[Path, dict[str, Path]]:
    """The model's file and its parts', each as it lies in ``out`` where it does."""
    parts = {**inspection.part_files}
    for part, files in inspection.weights.items():
        if files[0].startswith(f"{part}/") and (out / files[0]).is_file():
            parts[part] = out / files[0]
    model = out / Path(inspection.path).name
    return (model if model.is_file() else Path(inspection.path)), parts


def _copy(inspection: Inspection, record: File, staging: Path) -> None:
    """One file into ``staging``; what was exchanged since the inspection, by whatever means, has another hash."""
    target = staging / record.path
    reader, path = inspection.reader_of(record.path)
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, left = hashlib.sha256(), record.bytes
    try:
        source = reader.open(path)
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


def _check_copy(inspection: Inspection, staging: Path) -> None:
    """Raises ``BdauditError`` unless the copy passes what every model must before it is loaded."""
    try:
        result_of(inspection, staging)
    except BdauditError as error:
        raise BdauditError(f"the copy that was about to be written does not pass the inspection: {error}; nothing was written") from error


def _change(inspection: Inspection, staging: Path, relative: str, differences: Differences) -> None:
    """The copied file with its part's differences."""
    own = {part: pieces for part, pieces in inspection.pieces.items() if any(piece.file == relative for piece in pieces.values())}
    if not own:
        _rewrite(inspection, staging, relative, differences)
        return
    renamed = inspection.renamed.get(relative, {})
    if relative in inspection.left_out:
        leave_out(staging / relative, inspection.left_out[relative], shown(relative), renamed)
    for part, pieces in own.items():
        found = {name: tensor for name, tensor in differences.get(part, {}).items() if name in pieces}
        overwrite(staging / relative, {name: pieces[name].called(renamed) for name in found}, found, f"{shown(relative)}: {part}")
    (staging / relative).chmod(0o644)


def _rewrite(inspection: Inspection, staging: Path, relative: str, differences: Differences) -> None:
    """The copied file with its component's differences, in its place; as safetensors if it was none. All others stay as they are."""
    copied = target = staging / relative
    component = relative.split("/")[0]
    part = inspection.layout.models.get(component)
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


def _check_all_written(inspection: Inspection, staging: Path, differences: Differences) -> None:
    for component, tensors in differences.items():
        held, canonical = set(inspection.pieces.get(component, ())), inspection.layout.models[component].canonical
        for path in (staging / component).glob("*.safetensors") if component not in inspection.pieces else ():
            with open_tensors(path, shown(path), error=BdauditError) as file:
                held.update(name for stored in file.header.tensors for name in (stored, canonical(stored)))
        missing = sorted(set(tensors) - held)
        if missing:
            said = f"no weights file holds {missing[0]} ({len(missing)} tensors in all)"
            raise BdauditError(f"{component}: {said}; the model's layout is not supported")
