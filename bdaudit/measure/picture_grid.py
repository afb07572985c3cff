"""Evidence that a person can look at: same seeds, one picture beside the other."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from bdaudit.errors import BdauditError
from bdaudit.report.safe import code_point, visible
from bdaudit.spelling.points import short_digest
from bdaudit.targets import write_whole

_CELL, _GAP, _LINE, _FONT = 160, 8, 15, 12
_CHARACTERS = _CELL // 6


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


def write_grid(path: Path, sheet: Image.Image, flag: str = "--save-images") -> str:
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
        raise BdauditError(f"{flag} {path.parent}: cannot write {path.name}: {error}") from error
    return str(path)
