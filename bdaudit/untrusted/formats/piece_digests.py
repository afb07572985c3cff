"""Digests of tensors that lie in single files, as they would be in files of their own: one reading of the file, whatever it calls them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from bdaudit.untrusted.fingerprint import CASTS, Fingerprint, cast, fingerprint
from bdaudit.untrusted.formats.pieces import SCALE, Piece
from bdaudit.untrusted.formats.single_file import OneFile
from bdaudit.untrusted.safetensors_header import DTYPE_BYTES, bytes_of

Pieces = Mapping[str, Mapping[str, Piece]]
"""Part → canonical name → where it lies."""
Prints = dict[tuple[str, str], Fingerprint]
"""Part and canonical name → fingerprint."""


def digest_file(file: OneFile, sets: Sequence[Pieces], kinds: Collection[str]) -> tuple[str, list[Prints]]:
    """SHA-256 of the file, and the fingerprints of what of each set lies in it, with casts to ``kinds``.

    Raises:
        BdauditError: as ``fingerprint``.
    """
    cut = [piece for parts in sets for of in parts.values() for piece in of.values() if piece.file == file.key and piece.is_cut]
    cells = {_cell(piece): replace(piece.info, shape=(piece.info.count,)) for piece in cut}
    whole_ones = file.header.tensors.keys() - {piece.source.name for piece in cut}
    cells |= {name: info for name, info in file.header.tensors.items() if name in whole_ones}
    whole, prints = fingerprint(file.reader, file.path, cells, kinds)
    return whole, [_of_set(file, parts, prints, kinds) for parts in sets]


def _cell(piece: Piece) -> str:
    """What is read in one go, by name: a tensor, or what lies in it, one behind the other."""
    return f"{piece.source.name}/{piece.offset}" if piece.is_cut else piece.source.name


def _of_set(file: OneFile, parts: Pieces, prints: Mapping[str, Fingerprint], kinds: Collection[str]) -> Prints:
    found: Prints = {}
    for part, pieces in parts.items():
        for name, piece in pieces.items():
            if piece.file != file.key:
                continue
            source = piece.source
            moved = source.transposed or source.swapped
            found[part, name] = _turned(file, piece, kinds) if moved else replace(prints[_cell(piece)], info=piece.info)
            if piece.scale is not None:
                scale = f"{source.name.rpartition('.')[0]}.{SCALE}"
                found[part, f"{name}.{SCALE}"] = replace(prints[scale], info=replace(piece.scale, shape=()))
    return found


def _turned(file: OneFile, piece: Piece, kinds: Collection[str]) -> Fingerprint:
    """Of a tensor whose axes, or whose halves, the file has the other way round."""
    import numpy as np

    data = bytes_of(file.reader, file.path, file.header, piece.info)
    if piece.source.swapped:
        turned = data[len(data) // 2 :] + data[: len(data) // 2]
    else:
        rows, columns = piece.info.shape
        numbers = np.frombuffer(data, f"V{DTYPE_BYTES[piece.info.dtype]}").reshape(columns, rows)
        turned = np.ascontiguousarray(numbers.T).tobytes()
    to = [kind for kind in kinds if kind != piece.info.dtype and kind in CASTS and piece.info.dtype in CASTS]
    casts = {kind: hashlib.sha256(cast(turned, piece.info.dtype, kind)).digest() for kind in to}
    return Fingerprint(piece.info, hashlib.sha256(turned).digest(), casts)
