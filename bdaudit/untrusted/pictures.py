"""A picture's file, through the one door: its format and its size are known before anything is decoded. Knows no torch."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from bdaudit.errors import BdauditError, UsageError
from bdaudit.untrusted.open_file import open_file

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
"""What is decoded: Pillow's others are rare, and one of them starts another program."""
MAX_PIXELS = 1 << 25
"""Of one picture; 22 kB of PNG can claim 178 million, which take gigabytes."""


@contextmanager
def open_picture(path: Path, said: str) -> Iterator[Image.Image]:
    """A block with a picture whose header was read; decoding it in the block is under the same errors.

    Raises:
        UsageError: no regular file, none of ``FORMATS``, damaged, or of more than ``MAX_PIXELS``.
    """
    with open_file(path, said) as file:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of tags that are cut short, and of sizes: the bound here is lower
                with Image.open(file, formats=FORMATS) as picture:
                    width, height = picture.size
                    if width * height > MAX_PIXELS:
                        raise UsageError(f"{said} has {width}×{height} pixels; at most {MAX_PIXELS:,} are read: make it smaller")
                    yield picture
        except BdauditError:
            raise
        except Exception as problem:  # Pillow's decoders raise errors of many kinds on damaged files
            raise UsageError(f"{said}: expected a picture ({', '.join(FORMATS)}); got {problem}") from problem


def check_picture(path: Path, said: str) -> None:
    """Raises ``UsageError`` as ``open_picture``, decoding nothing."""
    with open_picture(path, said):
        pass
