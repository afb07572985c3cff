"""The tensors of a safetensors file, through the one door: its header is checked, then the bytes are read from the same descriptor."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bdaudit.errors import BdauditError, RefusedError, UsageError
from bdaudit.untrusted.open_file import Raised, open_file, reading
from bdaudit.untrusted.safetensors_header import DTYPE_BYTES, Header, TensorInfo, header_of

DTYPES = {"BOOL": torch.bool, "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}
DTYPES |= {"U8": torch.uint8, "U16": torch.uint16, "U32": torch.uint32, "U64": torch.uint64}
DTYPES |= {"I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64}
DTYPES |= {"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}


@dataclass(frozen=True)
class TensorFile:
    """An open file whose header was checked."""

    said: str
    size: int
    """Bytes."""
    header: Header
    file: io.BufferedReader

    def load(self) -> tuple[dict[str, Tensor], str]:
        """Every tensor, on the CPU, and the SHA-256 of the bytes that they came from, header included.

        Raises:
            BdauditError: the file became shorter.
        """
        digest = hashlib.sha256(self.header.prefix)
        self.file.seek(len(self.header.prefix))
        tensors = {}
        for name, info in sorted(self.header.tensors.items(), key=lambda item: item[1].begin):
            tensors[name], data = self._tensor(name, info)
            digest.update(data)
        return tensors, digest.hexdigest()

    def read(self, info: TensorInfo) -> Tensor:
        """One tensor, or a run of one: what ``info`` says lies there.

        Raises:
            BdauditError: the file became shorter.
        """
        self.file.seek(len(self.header.prefix) + info.begin)
        return self._tensor("a tensor", info)[0]

    def _tensor(self, name: str, info: TensorInfo) -> tuple[Tensor, bytearray]:
        data = bytearray(info.count * DTYPE_BYTES[info.dtype])
        with reading(self.said, BdauditError):
            length = self.file.readinto(data)
        if length != len(data):
            raise BdauditError(f"{self.said} became shorter while it was read, at {name!a}")
        return torch.frombuffer(data, dtype=DTYPES[info.dtype]).reshape(info.shape), data


@contextmanager
def open_tensors(path: Path, said: str, *, error: Raised = UsageError, follow: bool = True) -> Iterator[TensorFile]:
    """A block with a safetensors file; ``said``, ``error`` and ``follow`` as in ``open_file``.

    Raises:
        BdauditError: as ``error``: what ``open_file`` refuses, or what is no whole safetensors file.
        RefusedError: a pickle or an archive under another name.
    """
    with open_file(path, said, error=error, follow=follow) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            with reading(said, BdauditError):
                header = header_of(file, size, said)
        except RefusedError:
            raise
        except BdauditError as problem:
            raise error(str(problem)) from problem
        yield TensorFile(said, size, header, file)
