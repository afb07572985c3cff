"""Where the tensors of a part lie in files that call, cut and turn them their own way."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from bdaudit.errors import BdauditError, InconclusiveError
from bdaudit.untrusted.formats.names.renaming import Source
from bdaudit.untrusted.safetensors_header import DTYPE_BYTES, TensorInfo
from bdaudit.untrusted.shapes import Tensors
from bdaudit.untrusted.tree import shown

SCALE = "scale_weight"
"""What scaled 8-bit weights call their scale, beside ``weight``: what the tensor means is its numbers times this one."""
FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
_SCALES = ("F32", "F16", "BF16")


@dataclass(frozen=True)
class Piece:
    """One tensor of a part."""

    file: str
    """The file's name in the inspection."""
    source: Source
    info: TensorInfo
    """Its type, its shape in the part, and where its first byte lies behind the file's header."""
    scale: TensorInfo | None = None
    """Of the number that all its numbers are to be multiplied by."""
    offset: int = 0
    """Bytes before it in the tensor that holds it."""

    @property
    def is_cut(self) -> bool:
        """Whether it is a part of the tensor that holds it."""
        return self.source.third is not None or self.source.rows is not None

    def called(self, renamed: Mapping[str, str]) -> Piece:
        """The same in a file that calls some tensors otherwise."""
        return replace(self, source=replace(self.source, name=renamed.get(self.source.name, self.source.name)))


def piece(file: str, source: Source, held: Tensors, where: str) -> Piece:
    """The piece that a source means; ``held`` is what the file holds, ``where`` what messages call it.

    Raises:
        BdauditError: it has not the shape that its name asks for.
        InconclusiveError: it holds no plain numbers, or its scale is of an unknown kind.
    """
    info = held[source.name]
    said = f"{where}: {shown(source.name)} has the shape {list(info.shape)}"
    begin = info.begin
    if source.third is not None:
        if not info.shape or info.shape[0] % 3:
            raise BdauditError(f"{said}; expected three tensors of one size, one after the other; the checkpoint is damaged")
        rows = info.shape[0] // 3
        info = _rows(info, source.third * rows, (source.third + 1) * rows)
    if source.rows is not None:
        info = _rows(info, *source.rows)
    if source.swapped and (not info.shape or info.shape[0] % 2):
        raise BdauditError(f"{said}; expected two halves; the checkpoint is damaged")
    if source.transposed:
        if len(info.shape) != 2:
            raise BdauditError(f"{said}; expected two axes; the checkpoint is damaged")
        info = replace(info, shape=info.shape[::-1])
    if source.flat and len(info.shape) == 4 and info.shape[2:] == (1, 1):
        info = replace(info, shape=info.shape[:2])
    return Piece(file, source, info, _scale(source.name, info, held, where), info.begin - begin)


def _rows(info: TensorInfo, first: int, end: int) -> TensorInfo:
    """Some rows of a tensor."""
    size = math.prod(info.shape[1:]) * DTYPE_BYTES[info.dtype]
    return TensorInfo(info.dtype, (end - first, *info.shape[1:]), info.begin + first * size)


def _scale(name: str, info: TensorInfo, held: Tensors, where: str) -> TensorInfo | None:
    stem, _, last = name.rpartition(".")
    scale = held.get(f"{stem}.{SCALE}") if last == "weight" else None
    if scale is None:
        return None
    if scale.count != 1 or scale.dtype not in _SCALES or not info.dtype.startswith("F8"):
        what = f"{where}: {shown(stem)}.{SCALE} is {scale.dtype} {list(scale.shape)}, for weights in {info.dtype}"
        raise InconclusiveError(f"{what}; expected one number for 8-bit floating-point weights, other scales are not supported")
    return scale


def check_numbers(pieces: Mapping[str, Piece], constant: frozenset[str], where: str) -> None:
    """Raises ``InconclusiveError`` where a tensor that matters holds whole numbers: quantised weights, without what they mean."""
    odd = [name for name, each in pieces.items() if each.info.dtype not in FLOATS and name not in constant]
    if odd:
        said = f"{where}: {shown(pieces[odd[0]].source.name)} is {pieces[odd[0]].info.dtype}"
        raise InconclusiveError(f"{said}; quantised weights are not supported; get them in float16 or float32")
