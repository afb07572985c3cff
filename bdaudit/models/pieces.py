"""The tensors of a part that lies in single files, as the part has them: cut, turned and scaled, in the precision that is asked for."""

from __future__ import annotations

import torch
from torch import Tensor

from bdaudit.errors import BdauditError
from bdaudit.tensor_file import TensorFile, open_tensors
from bdaudit.untrusted.formats.pieces import Piece
from bdaudit.untrusted.inspection import Inspection
from bdaudit.untrusted.tree import shown


def read_pieces(inspection: Inspection, part: str, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Canonical name → tensor on the CPU, floating-point ones in ``dtype``, as they lie there where it is None; constants are left out.

    Raises:
        BdauditError: a file cannot be read, or became shorter.
    """
    pieces = inspection.pieces[part]
    is_constant = inspection.layout.parts[part].is_constant
    found: dict[str, Tensor] = {}
    for key in dict.fromkeys(piece.file for piece in pieces.values()):
        reader, path = inspection.reader_of(key)
        with open_tensors(reader.root / path, shown(key), error=BdauditError) as file:
            for name, piece in pieces.items():
                if piece.file == key and not is_constant(name):
                    found[name] = read_piece(file, piece, dtype)
    return found


def read_piece(file: TensorFile, piece: Piece, dtype: torch.dtype | None) -> Tensor:
    """One tensor of an open file; a scaled one is multiplied out, in float32, whatever ``dtype`` is then made of it."""
    raw = file.read(piece.info)
    if piece.source.transposed:
        raw = raw.reshape(piece.info.shape[::-1]).T.contiguous()
    if piece.source.swapped:
        raw = halves_swapped(raw)
    if piece.scale is not None:
        raw = raw.float() * file.read(piece.scale).float().reshape(())
    return raw if dtype is None else raw.to(dtype)


def halves_swapped(tensor: Tensor) -> Tensor:
    """The second half of the first axis before the first one; its own inverse."""
    return torch.cat(tensor.chunk(2)[::-1])
