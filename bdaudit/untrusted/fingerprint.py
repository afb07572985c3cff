"""What tensors hold, as digests: read once, in pieces, beside the file's own digest. Opens no model and needs no torch.

A tensor's bytes are digested as they lie there and as they would be after a cast (round to nearest, ties to even), so that two sets of
weights are compared without reading either a second time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bdaudit.errors import BdauditError
from bdaudit.untrusted.safetensors_header import DTYPE_BYTES, TensorInfo
from bdaudit.untrusted.tree import Reader, shown

if TYPE_CHECKING:
    import numpy as np

CASTS = ("F32", "F16", "BF16")
"""The precisions that are cast from and to; 8-bit ones are neither."""
_BLOCK = 1 << 22
_LONGEST_COUNT = 1 << 16


@dataclass(frozen=True)
class Fingerprint:
    """One tensor."""

    info: TensorInfo
    exact: bytes
    """SHA-256 of its bytes."""
    casts: dict[str, bytes] = field(default_factory=dict)
    """Precision → SHA-256 of its bytes after the cast."""

    def at(self, dtype: str) -> bytes:
        """The digest of its bytes in ``dtype``; empty where that is no cast that was made."""
        return self.exact if dtype == self.info.dtype else self.casts.get(dtype, b"")


@dataclass(frozen=True)
class TensorDigests:
    """What a model's tensors are, whatever files they lie in."""

    exact: str
    float16: str
    """The same for a model in float32 and for its cast to float16."""


def fingerprint(reader: Reader, path: str, tensors: dict[str, TensorInfo], to: Collection[str] = ()) -> tuple[str, dict[str, Fingerprint]]:
    """SHA-256 of a safetensors file whose header was read, and its tensors' fingerprints with casts to ``to``, in one reading.

    Raises:
        BdauditError: the file became shorter; it is a blob of the hub's cache, and its content is not its name.
    """
    prints = {}
    with reader.open(path) as file:
        whole = reader.digest(path, file)
        file.seek(len(reader.checked[path]))
        for name, info in sorted(tensors.items(), key=lambda item: item[1].begin):
            kinds = [kind for kind in to if kind != info.dtype and kind in CASTS and info.dtype in CASTS]
            exact, casts = hashlib.sha256(), {kind: hashlib.sha256() for kind in kinds}
            left = info.count * DTYPE_BYTES[info.dtype]
            while left:
                block = file.read(min(left, _BLOCK))
                if not block:
                    raise BdauditError(f"{shown(path)} became shorter while it was read")
                left -= len(block)
                whole.update(block)
                exact.update(block)
                for kind in kinds:
                    casts[kind].update(cast(block, info.dtype, kind))
            prints[name] = Fingerprint(info, exact.digest(), {kind: digest.digest() for kind, digest in casts.items()})
        if file.read(1):
            raise BdauditError(f"{shown(path)} became longer while it was read")
    return whole.hexdigest(), prints


def counts_up(one: Fingerprint) -> bool:
    """Whether a tensor holds 0, 1, 2 and so on, in whatever kind of number."""
    import numpy as np

    kinds = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "U8": "<u1", "I8": "<i1"}
    numbers = np.arange(one.info.count if one.info.count <= _LONGEST_COUNT else 0)
    if one.info.dtype == "BF16":
        content = cast(numbers.astype("<f4").tobytes(), "F32", "BF16")
    else:
        content = numbers.astype(kinds.get(one.info.dtype, "<i8")).tobytes()
    return hashlib.sha256(content).digest() == one.exact


def cast(block: bytes, dtype: str, to: str) -> bytes:
    """Little-endian numbers of one precision as those of another, by way of float32: round to nearest, ties to even."""
    import numpy as np

    if dtype == "BF16":
        numbers = (np.frombuffer(block, "<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        numbers = np.frombuffer(block, {"F32": "<f4", "F16": "<f2"}[dtype]).astype(np.float32)
    if to == "BF16":
        return _bfloat16(numbers).tobytes()
    with np.errstate(over="ignore"):
        return numbers.astype({"F32": "<f4", "F16": "<f2"}[to]).tobytes()


def _bfloat16(numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    import numpy as np

    bits = numbers.view(np.uint32)
    return ((bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16).astype("<u2")


def lengthened(fields: Iterable[bytes]) -> bytes:
    """Fields in a row, the length of each before it, so that no two rows of fields look alike."""
    return b"".join(len(each).to_bytes(8, "little") + each for each in fields)


def tensor_digests(prints: dict[tuple[str, str], Fingerprint]) -> TensorDigests:
    """One digest over all tensors, by (canonical part, canonical name): of part, name, dtype, shape and SHA-256 of the bytes, each
    with its length before it, in the order of part and name; and one with every float32 and bfloat16 cast to float16."""
    exact, half = hashlib.sha256(), hashlib.sha256()
    for (part, name), one in sorted(prints.items()):
        shape = ",".join(map(str, one.info.shape))
        names = [part.encode(), name.encode("utf-8", "surrogatepass")]
        exact.update(lengthened([*names, one.info.dtype.encode(), shape.encode(), one.exact]))
        dtype = "F16" if one.info.dtype in CASTS else one.info.dtype
        half.update(lengthened([*names, dtype.encode(), shape.encode(), one.at(dtype)]))
    return TensorDigests(exact.hexdigest(), half.hexdigest())
