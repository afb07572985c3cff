"""A repaired single file: a copy in which the changed tensors' bytes differ, at their own places, and nothing else.

Weights that nobody looked at, a moving average of the repaired ones among them, are the exception: a copy that kept them would keep what
they hold, so that they are left out, and the others stay as they are, one after the other. A moving average that was itself repaired takes
the names, and so the place, of the weights that it is the average of.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from bdaudit.errors import BdauditError
from bdaudit.models.pieces import halves_swapped, read_piece
from bdaudit.models.rounding import Stored, stored_in
from bdaudit.tensor_file import TensorFile, open_tensors
from bdaudit.untrusted.formats.pieces import SCALE, Piece
from bdaudit.untrusted.safetensors_header import DTYPE_BYTES, Header, TensorInfo
from bdaudit.untrusted.tree import shown

_BLOCK = 1 << 20


def overwrite(copy: Path, pieces: Mapping[str, Piece], differences: Mapping[str, Tensor], said: str) -> None:
    """Add ``differences`` to a part's tensors in ``copy``, each in its place and its type, and read them back.

    Raises:
        BdauditError: a difference that does not fit its tensor; a sum that is not finite; what was read back is not what was written.
    """
    with open_tensors(copy, said, error=BdauditError) as file:
        own = {name: _moved(pieces[name], file.header) for name in differences}
        new = {name: _sum(file, own[name], difference, f"{said}: {name}") for name, difference in differences.items()}
        start = len(file.header.prefix)
    with copy.open("r+b") as target:
        for name, value in new.items():
            target.seek(start + own[name].info.begin)
            target.write(_bytes(_as_stored(value.numbers, own[name])))
            scale = own[name].scale
            if scale is not None and value.scale is not None:
                target.seek(start + scale.begin)
                target.write(_bytes(value.scale))
    with open_tensors(copy, said, error=BdauditError) as file:
        for name, value in new.items():
            if not torch.equal(read_piece(file, own[name], None).float(), value.read().float()):
                raise BdauditError(f"{said}: {name} is not read back as it was written; nothing was left there; check the disk")


def _as_stored(numbers: Tensor, piece: Piece) -> Tensor:
    if piece.source.swapped:
        return halves_swapped(numbers)
    return numbers.T if piece.source.transposed else numbers


def _moved(piece: Piece, header: Header) -> Piece:
    """The piece where ``header`` has it: in a copy without some tensors the others lie nearer to the start."""
    begin = header.tensors[piece.source.name].begin + piece.offset
    scale = None if piece.scale is None else header.tensors[f"{piece.source.name.rpartition('.')[0]}.{SCALE}"]
    return replace(piece, info=TensorInfo(piece.info.dtype, piece.info.shape, begin), scale=scale)


def _sum(file: TensorFile, piece: Piece, difference: Tensor, said: str) -> Stored:
    old = read_piece(file, piece, None)
    if difference.shape != old.shape or not old.is_floating_point():
        what = f"{said} is {old.dtype} {list(old.shape)}, the difference is {list(difference.shape)}"
        raise BdauditError(f"{what}; they do not belong together")
    scale = None if piece.scale is None else file.read(piece.scale)
    value = Stored(old).read() + difference.detach().cpu()
    new = stored_in(value, piece, scale, said)
    if not bool(torch.isfinite(new.read()).all()):
        raise BdauditError(f"{said} is not finite in {piece.info.dtype} once the difference is added")
    return new


def _bytes(numbers: Tensor) -> bytes:
    return bytes(numbers.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())


def leave_out(copy: Path, names: Collection[str], said: str, renamed: Mapping[str, str] | None = None) -> None:
    """Write ``copy`` anew without the tensors ``names``; all others keep their order, their bytes and the file's metadata, and their names
    but for those that ``renamed`` gives another.

    Raises:
        BdauditError: it is no whole safetensors file.
    """
    target = copy.with_name(f"{copy.name}.left")
    with open_tensors(copy, said, error=BdauditError) as file, target.open("xb") as new:
        kept = sorted((name for name in file.header.tensors if name not in names), key=lambda name: file.header.tensors[name].begin)
        new.write(_header(file.header, kept, renamed or {}))
        for block in _blocks(file, kept):
            new.write(block)
    target.replace(copy)


def _header(header: Header, kept: Iterable[str], renamed: Mapping[str, str]) -> bytes:
    """A header of the tensors ``kept``, one after the other, its length before it."""
    entries: dict[str, object] = {"__metadata__": header.metadata} if header.metadata else {}
    end = 0
    for name in kept:
        info = header.tensors[name]
        begin, end = end, end + info.count * DTYPE_BYTES[info.dtype]
        entries[renamed.get(name, name)] = {"dtype": info.dtype, "shape": list(info.shape), "data_offsets": [begin, end]}
    text = json.dumps(entries, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _blocks(file: TensorFile, kept: Iterable[str]) -> Iterable[bytes]:
    for name in kept:
        info = file.header.tensors[name]
        file.file.seek(len(file.header.prefix) + info.begin)
        left = info.count * DTYPE_BYTES[info.dtype]
        while left:
            block = file.file.read(min(left, _BLOCK))
            if not block:
                raise BdauditError(f"{file.said} became shorter while it was copied, at {shown(name)}")
            left -= len(block)
            yield block
