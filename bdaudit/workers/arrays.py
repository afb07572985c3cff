"""Arrays as data: float32 numbers with a shape, their bytes in base64; to the bit, and in a third of what decimals take."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

BYTES = 4
"""Of a number; base64 makes 4 of 3."""


@dataclass(frozen=True, kw_only=True)
class Array:
    """Numbers of any shape; a message's bound is theirs, too."""

    shape: tuple[int, ...]
    data: str
    """Little-endian float32, the last index moving fastest, in base64."""

    @classmethod
    def of(cls, tensor: Tensor) -> Array:
        """Of a tensor on any device."""
        plain = np.ascontiguousarray(tensor.detach().float().cpu().numpy(), dtype="<f4")
        return cls(shape=tuple(tensor.shape), data=base64.b64encode(plain.tobytes()).decode("ascii"))

    def tensor(self, shape: Sequence[int | None]) -> Tensor:
        """On the CPU; of ``shape`` the sides that are None can have any length.

        Raises:
            ValueError: it is of another shape, its bytes are too few or too many or no base64, or a number is NaN.
        """
        fits = len(self.shape) == len(shape) and all(want in (None, got) and got >= 0 for want, got in zip(shape, self.shape, strict=True))
        if not fits:
            raise ValueError(f"an array of the shape {list(self.shape)[:8]}")
        try:
            data = base64.b64decode(self.data, validate=True)
        except ValueError as error:
            raise ValueError("an array that is no base64") from error
        if len(data) != BYTES * math.prod(self.shape):
            raise ValueError(f"an array of the shape {list(self.shape)} in {len(data):,} bytes")
        made = torch.from_numpy(np.frombuffer(data, dtype="<f4").astype(np.float32)).reshape(self.shape)
        if bool(made.isnan().any()):
            raise ValueError("an array with NaN in it")
        return made
