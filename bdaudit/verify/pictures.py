"""Pictures read from files, and evidence that a person can look at: same seeds, clean beside triggered."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from bdaudit.errors import BdauditError, UsageError
from bdaudit.measure.grader import Extractor
from bdaudit.measure.picture_files import read_picture
from bdaudit.report.safe import code_point, visible
from bdaudit.spelling.points import short_digest
from bdaudit.targets import write_whole
from bdaudit.untrusted.pictures import check_picture

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_CELL, _GAP, _LINE, _FONT = 160, 8, 15, 12
_CHARACTERS = _CELL // 6


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


def safe(text: str) -> str:
    """``text`` in printable ASCII, no two alike; every other character as ``<U+XXXX>``."""
    return "".join(c if c.isascii() else code_point(c) for c in visible(text))


def grid(prompts: Sequence[str], columns: Mapping[str, Tensor]) -> Image.Image:
    """A row a prompt, a column a title: each column's pictures (R, 3, H, W) in 0–1, in the prompts' order.

    Small pictures are enlarged without smoothing, so that a pixel stays a pixel.
    """
    titles = {name: _wrap(safe(name), 3) for name in columns}
    captions = [_wrap(safe(prompt), 6) for prompt in prompts]
    head = max(len(lines) for lines in titles.values()) * _LINE + 2 * _GAP
    size = ((len(columns) + 1) * (_CELL + _GAP) + _GAP, head + len(prompts) * (_CELL + _GAP))
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT)
    for row, lines in enumerate(captions):
        draw.multiline_text((_GAP, head + row * (_CELL + _GAP)), "\n".join(lines), "black", font)
    for column, (name, pictures) in enumerate(columns.items(), 1):
        left = _GAP + column * (_CELL + _GAP)
        draw.multiline_text((left, _GAP), "\n".join(titles[name]), "black", font)
        for row, picture in enumerate(pictures):
            sheet.paste(_cell(picture), (left, head + row * (_CELL + _GAP)))
    return sheet


def _wrap(text: str, most: int) -> list[str]:
    lines = textwrap.wrap(text, _CHARACTERS) or [""]
    if len(lines) <= most:
        return lines
    mark = f"... #{short_digest(text)}"
    return [*lines[: most - 1], lines[most - 1][: _CHARACTERS - len(mark)] + mark]


def _cell(picture: Tensor) -> Image.Image:
    pixels = (picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    image = Image.fromarray(pixels)
    scale = _CELL / max(image.size)
    times = int(scale) if scale >= 1 else scale
    shown = (max(1, round(image.width * times)), max(1, round(image.height * times)))
    return image.resize(shown, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS)


def write_grid(path: Path, sheet: Image.Image) -> str:
    """Save ``sheet`` as PNG, whole or not at all, the folder made if need be; the path as text.

    Raises:
        BdauditError: the folder cannot be written.
    """
    content = io.BytesIO()
    sheet.save(content, "PNG")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content.getvalue())
    except OSError as error:
        raise BdauditError(f"--save-images {path.parent}: cannot write {path.name}: {error}") from error
    return str(path)
