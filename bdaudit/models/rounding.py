"""What becomes of a changed tensor in its file: rounded to the type that it has there, an 8-bit one with its scale, and read back.

A repair is checked as it will be written, so that no rounding undoes it unseen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bdaudit.errors import BdauditError
from bdaudit.models.pieces import read_piece
from bdaudit.tensor_file import DTYPES, TensorFile, open_tensors
from bdaudit.untrusted.formats.names.renaming import Source
from bdaudit.untrusted.formats.pieces import Piece
from bdaudit.untrusted.inspection import Inspection
from bdaudit.untrusted.tree import shown

Differences = Mapping[str, Mapping[str, Tensor]]
"""Component → tensor name → after − before, float32."""
_WIDE = ("F32", "F64")


@dataclass(frozen=True)
class Stored:
    """A tensor as a file has it."""

    numbers: Tensor
    """Of the file's type."""
    scale: Tensor | None = None
    """One number, of the file's type for it."""

    def read(self) -> Tensor:
        """What is read back, float32; 64-bit numbers as they are."""
        whole = self.numbers if self.numbers.dtype == torch.float64 else self.numbers.float()
        return whole if self.scale is None else whole * self.scale.float()


def stored(value: Tensor, dtype: torch.dtype, scale: Tensor | None = None) -> Stored:
    """``value`` in ``dtype``: to the nearest, ties to even. A scale stays while the numbers fit by it, so that what did not change stays to
    the bit; where they do not, it becomes what makes the largest of them fit."""
    if scale is None:
        return Stored(value.to(dtype))
    largest, most = value.abs().max().float(), torch.finfo(dtype).max
    if bool(largest > most * scale.float()):
        scale = (largest / most).to(scale.dtype).reshape(scale.shape)
    return Stored((value.float() / scale.float()).to(dtype), scale)


def stored_in(value: Tensor, piece: Piece, scale: Tensor | None, said: str) -> Stored:
    """``value`` as ``piece`` has it in its file.

    Raises:
        BdauditError: its numbers need another scale, and further tensors have this one: they would change with it.
    """
    new = stored(value, DTYPES[piece.info.dtype], scale)
    if scale is not None and piece.is_cut and new.scale is not None and not torch.equal(new.scale, scale):
        what = f"{said} gets numbers that its scale does not reach, and other tensors in {shown(piece.source.name)} have the same scale"
        raise BdauditError(f"{what}; repair a copy in 16 bits")
    return new


def rounded(inspection: Inspection, differences: Differences) -> dict[str, dict[str, Tensor]]:
    """What is left of ``differences`` once they are added to the model's files, each tensor in its own type, and read back.

    What is added to 32-bit tensors is left as it is, and to those of a pickle, which become safetensors.

    Raises:
        BdauditError: a file cannot be read.
    """
    found = {part: dict(tensors) for part, tensors in differences.items()}
    for part, tensors in found.items():
        for key in inspection.weights[part] if part not in inspection.pickled else ():
            reader, path = inspection.reader_of(key)
            with open_tensors(reader.root / path, shown(key), error=BdauditError) as file:
                for name, piece in _pieces(inspection, part, key, file).items():
                    if name in tensors and piece.info.dtype not in _WIDE:
                        tensors[name] = _left(file, piece, tensors[name], f"{shown(key)}: {name}")
    return found


def _pieces(inspection: Inspection, part: str, key: str, file: TensorFile) -> dict[str, Piece]:
    """Canonical name → where it lies in the file."""
    if part in inspection.pieces:
        return {name: piece for name, piece in inspection.pieces[part].items() if piece.file == key}
    canonical = inspection.layout.parts[part].canonical
    return {canonical(name): Piece(key, Source(name), info) for name, info in file.header.tensors.items()}


def _left(file: TensorFile, piece: Piece, difference: Tensor, said: str) -> Tensor:
    old = read_piece(file, piece, None).float()
    if old.shape != difference.shape:
        return difference  # told where it is written
    scale = None if piece.scale is None else file.read(piece.scale)
    return stored_in(old + difference.detach().cpu(), piece, scale, said).read() - old
