"""Pictures: the size is known before anything is decoded, and no more than common formats are."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bdaudit.errors import UsageError
from bdaudit.untrusted import pictures
from bdaudit.untrusted.pictures import FORMATS, check_picture, open_picture
from tests.hostile_doors import strips


def bomb(path: Path, side: int) -> Path:
    """A grey PNG of ``side`` × ``side`` pixels, a bit each, compressed."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(bytes((side + 7) // 8 + 1) * side, 9)
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    return path


def test_a_picture_of_33_million_pixels_is_taken_and_no_larger_one(tmp_path: Path) -> None:
    assert pictures.MAX_PIXELS == 4096 * 8192
    check_picture(bomb(tmp_path / "taken.png", 5_792), "--flag x")
    with pytest.raises(UsageError, match="--flag x has 5793×5793 pixels; at most 33,554,432 are read"):
        check_picture(bomb(tmp_path / "refused.png", 5_793), "--flag x")


@pytest.mark.parametrize("name", FORMATS)
def test_a_picture_of_each_format_is_read(name: str, tmp_path: Path) -> None:
    Image.new("RGB", (6, 4), (255, 0, 0)).save(tmp_path / "x", name)
    with open_picture(tmp_path / "x", "--flag x") as picture:
        assert np.asarray(picture.convert("RGB")).shape == (4, 6, 3)


@pytest.mark.parametrize("name", FORMATS)
def test_the_size_is_bounded_from_both_sides(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (6, 4)).save(tmp_path / "x", name)
    monkeypatch.setattr(pictures, "MAX_PIXELS", 24)
    check_picture(tmp_path / "x", "--flag x")
    monkeypatch.setattr(pictures, "MAX_PIXELS", 23)
    with pytest.raises(UsageError, match="--flag x has 6×4 pixels; at most 23 are read"):
        check_picture(tmp_path / "x", "--flag x")


def test_a_bomb_is_refused_within_little_memory(tmp_path: Path) -> None:
    path = bomb(tmp_path / "bomb.png", 13_341)
    assert path.stat().st_size < 40_000
    limited = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29))
from bdaudit.errors import UsageError
from bdaudit.untrusted.pictures import open_picture
try:
    with open_picture(Path(sys.argv[1]), "--flag") as picture:
        picture.convert("RGB")
except UsageError as error:
    print(error)
"""
    ended = subprocess.run([sys.executable, "-c", limited, str(path)], capture_output=True, text=True, check=True)
    assert ended.stdout == "--flag has 13341×13341 pixels; at most 33,554,432 are read: make it smaller\n"


def test_what_is_no_picture_or_breaks_off_is_a_declared_error(tmp_path: Path) -> None:
    (tmp_path / "eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    (tmp_path / "empty").touch()
    Image.effect_noise((40, 40), 50).save(tmp_path / "cut", "PNG")
    (tmp_path / "cut").write_bytes((tmp_path / "cut").read_bytes()[:200])
    for name in ("eps", "empty", "cut"):
        with pytest.raises(UsageError, match=r"^--flag: expected a picture \(PNG"), open_picture(tmp_path / name, "--flag") as picture:
            picture.load()


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.png")
    with pytest.raises(UsageError, match="--flag is a pipe"):
        check_picture(tmp_path / "x.png", "--flag")


def progressive(path: Path, more: int) -> Path:
    """A progressive JPEG whose last scan stands ``more`` times again; and how many scans it has."""
    Image.effect_noise((32, 32), 60).convert("RGB").save(path, "JPEG", progressive=True)
    data = path.read_bytes()
    last = data[data.rindex(b"\xff\xda") : -2]
    path.write_bytes(data[:-2] + last * more + data[-2:])
    return path


def test_a_jpeg_of_more_scans_than_any_has_is_not_decoded(tmp_path: Path) -> None:
    own = progressive(tmp_path / "own.jpg", 0).read_bytes().count(b"\xff\xda")
    assert 6 <= own <= 20
    with open_picture(progressive(tmp_path / "most.jpg", 200 - own), "--flag x") as picture:
        picture.load()
    with pytest.raises(UsageError, match="--flag x is a JPEG of 201 scans; at most 200 are read: save it as PNG"):
        check_picture(progressive(tmp_path / "more.jpg", 201 - own), "--flag x")


def test_a_tiff_with_jpegs_in_it_is_not_decoded(tmp_path: Path) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "plain.tif", compression="tiff_lzw")
    check_picture(tmp_path / "plain.tif", "--flag x")
    Image.new("RGB", (32, 32)).save(tmp_path / "jpeg.tif", compression="jpeg")
    with pytest.raises(UsageError, match="--flag x is a TIFF with JPEGs in it"):
        check_picture(tmp_path / "jpeg.tif", "--flag x")


def test_a_files_length_is_bounded_from_both_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pictures.MAX_BYTES == 1 << 25 == pictures.MAX_PIXELS
    Image.new("RGB", (6, 4)).save(tmp_path / "x.png")
    length = (tmp_path / "x.png").stat().st_size
    monkeypatch.setattr(pictures, "MAX_BYTES", length)
    check_picture(tmp_path / "x.png", "--flag x")
    monkeypatch.setattr(pictures, "MAX_BYTES", length - 1)
    with pytest.raises(UsageError, match=f"--flag x is longer than {length - 1:,} bytes"):
        check_picture(tmp_path / "x.png", "--flag x")


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_tiff_of_more_strips_than_a_picture_has_rows_is_not_decoded(tmp_path: Path, order: str) -> None:
    (tmp_path / "few.tif").write_bytes(strips(order, 300))
    with open_picture(tmp_path / "few.tif", "--flag x") as picture:
        assert np.asarray(picture).shape == (300, 1)
    (tmp_path / "most.tif").write_bytes(strips(order, 1 << 16))
    check_picture(tmp_path / "most.tif", "--flag x")
    (tmp_path / "more.tif").write_bytes(strips(order, (1 << 16) + 1))
    with pytest.raises(UsageError, match="--flag x is a TIFF of 65,537 parts; at most 65,536 are read: save it as PNG"):
        check_picture(tmp_path / "more.tif", "--flag x")


@pytest.mark.parametrize("mark", [b"II+\0", b"MM\0+"])
def test_a_tiff_for_files_beyond_4_gb_is_not_read(tmp_path: Path, mark: bytes) -> None:
    (tmp_path / "x.tif").write_bytes(strips("<", 3, mark))
    with pytest.raises(UsageError, match="beyond 4 GB"):
        check_picture(tmp_path / "x.tif", "--flag x")
