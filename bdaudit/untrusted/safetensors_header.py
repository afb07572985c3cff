"""What a safetensors file says it holds, checked against its size, without reading a tensor."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from bdaudit.errors import BdauditError, RefusedError
from bdaudit.untrusted.tree import PointerError, Reader, is_pointer, looks_pickled, parse_json, shown

MAX_HEADER = 16 << 20
"""Bytes. The format allows 100 MB; a Stable Diffusion UNet's header has 0.1 MB."""
MAX_ITEMS = 200_000
"""Commas and brackets of a header; a tensor takes about nine."""

LONGEST_NAME = 1_000
"""Characters of a tensor's name; those in use have up to 200. Maps of names take time by the square of their dots."""

_FIRST = b"{ \t\r\n"
"""What a header may begin with: the format asks for a brace, its readers take white space before it as well."""

DTYPE_BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2}
DTYPE_BYTES |= {"U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8}


EMPTY = ("scaled_fp8", "v_pred", "ztsnr")
"""How tensors' names end that may hold nothing: marks, which say by their names alone that 8-bit weights have scales, that the denoiser
predicts v, and that its last noise level is zero (ComfyUI writes them so)."""


@dataclass(frozen=True)
class TensorInfo:
    dtype: str
    shape: tuple[int, ...]
    begin: int = field(default=0, compare=False)
    """Where its bytes begin, after the header."""

    @property
    def count(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


class NoSafetensorsError(BdauditError):
    """A file that no reader of safetensors takes."""


@dataclass(frozen=True)
class Header:
    """The start of a file, checked against the file's size."""

    prefix: bytes
    """The very bytes, length included."""
    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]


def read_header(reader: Reader, path: str) -> dict[str, TensorInfo]:
    """Tensor name → dtype and shape, of a file of ``reader``'s; raises as ``header_of``."""
    return whole_header(reader, path, path).tensors


def whole_header(reader: Reader, path: str, where: str) -> Header:
    """The header of a file of ``reader``'s; raises as ``header_of``."""
    with reader.open(path) as file:
        header = header_of(file, reader.files[path], where)
    reader.checked[path] = header.prefix
    return header


def bytes_of(reader: Reader, path: str, header: Header, info: TensorInfo) -> bytes:
    """What lies where ``info`` says, behind a file's header.

    Raises:
        BdauditError: the file became shorter.
    """
    length = info.count * DTYPE_BYTES[info.dtype]
    with reader.open(path) as file:
        file.seek(len(header.prefix) + info.begin)
        data = file.read(length)
    if len(data) != length:
        raise BdauditError(f"{shown(path)} became shorter while it was read")
    return data


def header_of(file: BinaryIO, size: int, where: str) -> Header:
    """The header of an open file of ``size`` bytes; ``where`` is what messages call it.

    Raises:
        PointerError: what Git LFS left in its place.
        NoSafetensorsError: cut short, or something else.
        BdauditError: not JSON, unknown dtypes, or offsets that do not tile the file exactly.
        RefusedError: a pickle or an archive with the suffix ``.safetensors``.
    """
    start = file.read(512) or b""  # None where there is nothing yet, as of the kernel's log
    length = int.from_bytes(start[:8], "little")
    if is_pointer(start):
        raise PointerError(where)
    fits = len(start) > 8 and start[8] in _FIRST and 8 + length <= size
    if not fits and looks_pickled(start):
        raise RefusedError([f"{shown(where)} is a pickle or an archive under a safetensors name"])
    if not fits:
        raise NoSafetensorsError(f"{shown(where)} is no safetensors file, or cut short: {size} bytes, header of {length}")
    if length > MAX_HEADER:
        raise BdauditError(f"{shown(where)}: a header of {length:,} bytes; at most {MAX_HEADER:,} are read")
    file.seek(0)
    prefix = file.read(8 + length)
    header = parse_json(prefix[8:], where, MAX_ITEMS)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise BdauditError(f"{shown(where)}: __metadata__ is not a map of strings")
    return Header(prefix, _tensors(header, where, size - 8 - length), metadata)


def _tensors(header: dict[str, Any], path: str, span: int) -> dict[str, TensorInfo]:
    found: dict[str, TensorInfo] = {}
    ranges = []
    for name, entry in header.items():
        found[name], offsets = _tensor(name, entry, path)
        ranges.append(offsets)
    end = 0
    for begin, stop in sorted(ranges):
        if begin != end:
            raise BdauditError(f"{shown(path)}: tensors overlap or leave a gap at byte {end}")
        end = stop
    if end != span:
        raise BdauditError(f"{shown(path)}: tensors take {end} bytes, the file holds {span}")
    return found


def _tensor(name: str, entry: Any, path: str) -> tuple[TensorInfo, tuple[int, int]]:
    where = f"{shown(path)}: tensor {shown(name)}"
    if len(name) > LONGEST_NAME:
        raise BdauditError(f"{where}: a name of {len(name):,} characters; at most {LONGEST_NAME:,} are read")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise BdauditError(f"{where}: expected dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise BdauditError(f"{where}: unknown dtype {shown(dtype)}")
    if isinstance(shape, list) and 0 in shape and not (name.endswith(EMPTY) and shape == [0]):
        raise BdauditError(f"{where}: shape {shown(shape)} holds nothing; a size without bytes describes no model")
    if not _sizes(shape) or len(shape) > 8 or not _sizes(offsets) or len(offsets) != 2:
        raise BdauditError(f"{where}: shape and data_offsets must be short lists of whole numbers")
    if offsets[1] - offsets[0] != math.prod(shape) * DTYPE_BYTES[dtype]:
        raise BdauditError(f"{where}: shape {shown(shape)} in {dtype} does not take {offsets[1] - offsets[0]} bytes")
    return TensorInfo(dtype, tuple(shape), offsets[0]), (offsets[0], offsets[1])


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(v) is int and 0 <= v < 1 << 63 for v in value)
