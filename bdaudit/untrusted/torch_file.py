"""What a ``torch.save`` archive holds, found out without building anything: for ``--allow-pickle``, before torch opens it.

The pickle in it may name tensors and nothing else; what it names is stood in for by inert objects.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import zipfile
from dataclasses import dataclass
from typing import Any, BinaryIO

from bdaudit.errors import BdauditError, RefusedError
from bdaudit.untrusted.safetensors_header import DTYPE_BYTES, LONGEST_NAME, TensorInfo
from bdaudit.untrusted.tree import PointerError, Reader, is_pointer, shown

MAX_PICKLE = 16 << 20
"""Bytes of an archive's pickle; a Stable Diffusion UNet's has 0.1 MB."""
MAX_DIRECTORY = 4 << 20
"""Bytes of an archive's list of its parts, some 50,000; a model has hundreds."""
_MAX_MEMO = 2_000_000
_STORAGES = {
    f"{name}Storage": dtype
    for name, dtype in {
        "Float": "F32", "Half": "F16", "BFloat16": "BF16", "Double": "F64", "Long": "I64", "Int": "I32", "Short": "I16", "Char": "I8",
        "Byte": "U8", "Bool": "BOOL",
    }.items()
}  # fmt: skip
_OPCODES = frozenset(
    {"PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"}
    | {"SHORT_BINUNICODE", "SHORT_BINSTRING", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "SETITEM"}
    | {"SETITEMS", "APPEND", "APPENDS", "BINPUT", "LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET", "GLOBAL", "STACK_GLOBAL", "BINPERSID"}
    | {"REDUCE", "BUILD"}
)


@dataclass(frozen=True, slots=True)
class _Stored:
    dtype: str
    key: str
    count: int


@dataclass(frozen=True, slots=True)
class _Named:
    """Stands in for a global; called, it describes and builds nothing."""

    name: str

    def __call__(self, *args: Any) -> Any:
        if self.name == "OrderedDict" and not args:
            return _Names()
        if self.name == "_rebuild_tensor_v2" and len(args) >= 4 and isinstance(args[0], _Stored):
            return _described(*args[:4])
        if self.name == "_rebuild_parameter" and args and isinstance(args[0], _Described):
            return args[0]
        raise ValueError(f"{self.name} of other arguments than torch.save writes")


@dataclass(frozen=True, slots=True)
class _Described:
    info: TensorInfo
    stored: _Stored
    offset: int


class _Names(dict[str, Any]):
    """An ``OrderedDict``, to which torch adds attributes."""


def _described(stored: _Stored, offset: int, shape: Any, stride: Any) -> _Described:
    sizes = all(isinstance(value, tuple) and all(type(v) is int and 0 <= v < 1 << 63 for v in value) for value in (shape, stride))
    if not sizes or len(shape) != len(stride) or len(shape) > 8 or type(offset) is not int or offset < 0:
        raise ValueError("a tensor whose shape and stride are not short tuples of whole numbers")
    dense = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    if any(size == 0 for size in shape) or any(s != d for s, d, size in zip(stride, dense, shape, strict=True) if size > 1):
        raise ValueError(f"a tensor of shape {shape} and stride {stride}, which does not lie in one piece")
    return _Described(TensorInfo(stored.dtype, shape), stored, offset)


class _Reader(pickle.Unpickler):
    """Refuses every global but those of a plain dictionary of tensors."""

    def find_class(self, module: str, name: str) -> Any:
        tensors = ("_rebuild_tensor_v2", "_rebuild_parameter")
        if (module, name) == ("collections", "OrderedDict") or (module == "torch._utils" and name in tensors):
            return _Named(name)
        if module == "torch" and name in _STORAGES:
            return _Named(name)
        raise RefusedError([f"its pickle calls {shown(module)}.{shown(name)}, which is no tensor"])

    def persistent_load(self, pid: Any) -> _Stored:
        if not isinstance(pid, tuple) or len(pid) != 5 or pid[0] != "storage" or not isinstance(pid[1], _Named):
            raise ValueError("a reference that is no storage")
        _, kind, key, _, count = pid
        if kind.name not in _STORAGES or not isinstance(key, str) or type(count) is not int or count < 0:
            raise ValueError("a storage without a type, a name or a length")
        return _Stored(_STORAGES[kind.name], key, count)


class _Bounded(io.RawIOBase):
    """A file of which no more than ``most`` bytes are read at once, whatever an archive says of itself."""

    def __init__(self, file: BinaryIO, most: int) -> None:
        self._file, self.most = file, most

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size if 0 <= size <= self.most else self.most + 1)
        if len(data) > self.most:
            raise ValueError(f"a part of more than {self.most:,} bytes; no more are read at once")
        return data


def read_torch(reader: Reader, path: str) -> dict[str, TensorInfo]:
    """Tensor name → dtype and shape of the ``torch.save`` archive ``path``.

    Raises:
        RefusedError: its pickle holds anything but tensors, or it is of the format before torch 1.6.
        BdauditError: damaged, compressed, or storages that are not there.
    """
    with reader.open(path) as file:
        head = file.read(64)
        if is_pointer(head):
            raise PointerError(path)
        if not head.startswith(b"PK\x03\x04"):
            raise RefusedError([f"{shown(path)} is no archive of torch 1.6 or later; --allow-pickle reads no other pickle"])
        try:
            bounded = _Bounded(file, MAX_DIRECTORY)
            with zipfile.ZipFile(bounded) as archive:
                bounded.most = MAX_PICKLE
                content, storages = _parts(archive)
            return _tensors(_decode(content), storages)
        except RefusedError as error:
            raise RefusedError([f"{shown(path)}: {reason}" for reason in error.reasons]) from error
        except Exception as error:  # a damaged archive fails in many ways; all of them are a damaged file
            raise BdauditError(f"{shown(path)} is damaged, or no plain dictionary of tensors: {shown(error)}") from error


def _parts(archive: zipfile.ZipFile) -> tuple[bytes, dict[str, int]]:
    """The pickle, and the bytes of each storage by its name."""
    entries = archive.infolist()
    pickles = [entry for entry in entries if entry.filename.endswith("/data.pkl") and entry.filename.count("/") == 1]
    if len(pickles) != 1 or len({entry.filename for entry in entries}) != len(entries):
        raise ValueError("expected one data.pkl, and each name once")
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size for entry in entries):
        raise ValueError("a compressed part, which torch.save never writes")
    if pickles[0].file_size > MAX_PICKLE:
        raise ValueError(f"a pickle of {pickles[0].file_size:,} bytes; at most {MAX_PICKLE:,} are read")
    folder = pickles[0].filename.removesuffix("data.pkl") + "data/"
    sizes = {entry.filename.removeprefix(folder): entry.file_size for entry in entries if entry.filename.startswith(folder)}
    return archive.read(pickles[0]), sizes


def _decode(content: bytes) -> Any:
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name not in _OPCODES:
            raise RefusedError([f"its pickle uses {opcode.name}, which no dictionary of tensors needs"])
        if opcode.name.endswith(("PUT", "GET")) and (argument or 0) > _MAX_MEMO:
            raise ValueError("a memo past any use")
    return _Reader(io.BytesIO(content)).load()


def _tensors(value: Any, storages: dict[str, int]) -> dict[str, TensorInfo]:
    if not isinstance(value, dict) or not all(isinstance(n, str) and isinstance(t, _Described) for n, t in value.items()):
        raise ValueError("expected names and tensors, and nothing else")
    if max(map(len, value), default=0) > LONGEST_NAME:
        raise ValueError(f"a tensor's name of {max(map(len, value)):,} characters; at most {LONGEST_NAME:,} are read")
    for name, tensor in value.items():
        end = (tensor.offset + math.prod(tensor.info.shape)) * DTYPE_BYTES[tensor.info.dtype]
        held = storages.get(tensor.stored.key, -1)
        if end > held or tensor.stored.count * DTYPE_BYTES[tensor.info.dtype] > held:
            raise ValueError(f"the tensor {shown(name)} takes more bytes than its storage holds")
    return {name: tensor.info for name, tensor in value.items()}
