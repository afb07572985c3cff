"""A picture from a file, through Pillow and within its limits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bdaudit.errors import UsageError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
"""What is decoded: Pillow's others are rare, and one of them starts another program."""


def read_picture(path: Path, what: str) -> Tensor:
    """(3, H, W) in 0–1; ``what`` is the flag that named the file.

    Raises:
        UsageError: not a picture that Pillow reads.
    """
    try:
        with Image.open(path, formats=FORMATS) as picture:
            pixels = np.asarray(picture.convert("RGB"), dtype=np.float32)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise UsageError(f"{what} {path}: expected a picture; got {error}") from error
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 255
