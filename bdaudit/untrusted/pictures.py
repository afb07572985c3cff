"""A picture's file, through the one door: its format and its size are known before anything is decoded. Knows no torch."""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from bdaudit.errors import BdauditError, UsageError
from bdaudit.untrusted.open_file import open_file

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
"""What is decoded: Pillow's others are rare, and one of them starts another program."""
MAX_PIXELS = 1 << 25
"""Of one picture; 22 kB of PNG can claim 178 million, which take gigabytes."""
MAX_BYTES = 1 << 25
"""Of its file: 8 MB of small blocks or of fill bytes take a decoder up to six seconds before it comes to any pixel."""
_MAX_SCANS = 200
"""Of a JPEG: a progressive one has about ten, and each takes the time of the whole picture, however few bytes it has."""
_SCAN = b"\xff\xda"
_TIFF_COMPRESSION, _JPEG_INSIDE = 259, (6, 7)
_TIFF_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_TIFF_LONG = (b"II+\0", b"MM\0+")
_TIFF_PARTS, _MAX_PARTS = (273, 279, 324, 325), 1 << 16
"""Tags that list a TIFF's strips or tiles, a row each at most; 32 MB can list four million, which take gigabytes and a minute."""


@contextmanager
def open_picture(path: Path, said: str) -> Iterator[Image.Image]:
    """A block with a picture whose header was read; decoding it in the block is under the same errors.

    Raises:
        UsageError: no regular file, none of ``FORMATS``, damaged, of more than ``MAX_PIXELS`` or ``MAX_BYTES``, or a JPEG that takes long.
    """
    with open_file(path, said) as file:
        if os.fstat(file.fileno()).st_size > MAX_BYTES:
            raise UsageError(f"{said} is longer than {MAX_BYTES:,} bytes; save it smaller")
        try:
            _check_parts(file, said)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of tags that are cut short, and of sizes: the bound here is lower
                with Image.open(file, formats=FORMATS) as picture:
                    width, height = picture.size
                    if width * height > MAX_PIXELS:
                        raise UsageError(f"{said} has {width}×{height} pixels; at most {MAX_PIXELS:,} are read: make it smaller")
                    _check_scans(picture, file, said)
                    yield picture
        except BdauditError:
            raise
        except Exception as problem:  # Pillow's decoders raise errors of many kinds on damaged files
            raise UsageError(f"{said}: expected a picture ({', '.join(FORMATS)}); got {problem}") from problem


def _check_parts(file: BinaryIO, said: str) -> None:
    """Raises ``UsageError`` for a TIFF of too many strips or tiles, told by its first directory alone; leaves ``file`` at its start."""
    head = file.read(8)
    if head[:4] in _TIFF_LONG:
        raise UsageError(f"{said} is a TIFF for files beyond 4 GB, which is not read; save it as PNG")
    order = _TIFF_ORDERS.get(head[:4], "")
    if order:
        file.seek(struct.unpack(f"{order}I", head[4:])[0])
        (entries,) = struct.unpack(f"{order}H", file.read(2))
        for tag, _, count, _ in struct.iter_unpack(f"{order}HHII", file.read(12 * entries)):
            if tag in _TIFF_PARTS and count > _MAX_PARTS:
                raise UsageError(f"{said} is a TIFF of {count:,} parts; at most {_MAX_PARTS:,} are read: save it as PNG")
    file.seek(0)


def _check_scans(picture: Image.Image, file: BinaryIO, said: str) -> None:
    if picture.format == "TIFF" and getattr(picture, "tag_v2", {}).get(_TIFF_COMPRESSION) in _JPEG_INSIDE:
        raise UsageError(f"{said} is a TIFF with JPEGs in it, which are not read; save it as PNG")
    if picture.format not in ("JPEG", "MPO"):
        return
    here = file.tell()
    file.seek(0)
    scans = file.read(MAX_BYTES).count(_SCAN)  # no two bytes of packed pixels look like one
    file.seek(here)
    if scans > _MAX_SCANS:
        raise UsageError(f"{said} is a JPEG of {scans:,} scans; at most {_MAX_SCANS} are read: save it as PNG")


def check_picture(path: Path, said: str) -> None:
    """Raises ``UsageError`` as ``open_picture``, decoding nothing."""
    with open_picture(path, said):
        pass
