"""Real pictures, read from a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from bdaudit.errors import UsageError
from bdaudit.measure.grader import Extractor
from bdaudit.measure.picture_files import read_picture
from bdaudit.untrusted.pictures import check_picture

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def picture_files(folder: Path) -> tuple[Path, ...]:
    """The pictures in ``folder``, by name.

    Raises:
        UsageError: no folder, or fewer than two pictures in it.
    """
    found = tuple(sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)) if folder.is_dir() else ()
    if len(found) < 2:
        raise UsageError(f"--real-images {folder}: expected a folder of at least 2 pictures ({', '.join(SUFFIXES)}); found {len(found)}")
    return found


def check_pictures(files: Sequence[Path]) -> None:
    """Raises ``UsageError`` unless each is a picture by its header; decodes nothing."""
    for path in files:
        check_picture(path, f"--real-images {path}")


def folder_features(files: Sequence[Path], extractor: Extractor) -> Tensor:
    """(N, D), one picture at a time, so that sizes may differ."""
    return torch.cat([extractor.image_features(read_picture(path, "--real-images")[None]) for path in files])
