"""A picture from a file, as a tensor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bdaudit.untrusted.pictures import open_picture


def read_picture(path: Path, what: str) -> Tensor:
    """(3, H, W) in 0–1; ``what`` is the flag that named the file.

    Raises:
        UsageError: not a picture that is read; see ``open_picture``.
    """
    with open_picture(path, f"{what} {path}") as picture:
        pixels = np.array(picture.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).float().div_(255)
