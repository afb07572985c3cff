"""Content as one HTML page that needs nothing else: no script, no address, and a policy that forbids both.

Knows nothing of what a report is about. Whatever the template prints is made inert and escaped on its way out; there is no other way in.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from bdaudit.errors import UsageError
from bdaudit.report.content.blocks import Content, Picture
from bdaudit.report.safe import inert, visible
from bdaudit.untrusted.open_file import read_file

MOST_PICTURES = 48
"""Evidence pictures that one page embeds, evenly taken."""
_LARGEST = 1 << 25
"""Bytes of one."""
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Embedded:
    name: str
    uri: str
    """``data:image/png;base64,…``"""
    says: str
    """What it shows."""
    hidden: bool = False


def read_pictures(pictures: Sequence[Picture], most: int = MOST_PICTURES) -> tuple[Embedded, ...]:
    """The PNG files among ``pictures`` that exist, at most ``most`` of them, evenly taken; the only part that reads files."""
    there = [picture for picture in pictures if Path(picture.path).is_file()]
    chosen = there if len(there) <= most else [there[k * len(there) // most] for k in range(most)]
    read = [(picture, _bytes(Path(picture.path))) for picture in chosen]
    return tuple(Embedded(_name(picture.path), _uri(data), picture.says, picture.hidden) for picture, data in read if data.startswith(_PNG))


def _bytes(path: Path) -> bytes:
    try:
        return read_file(path, path.name, _LARGEST)
    except UsageError:
        return b""


def _name(path: str) -> str:
    return visible("/".join(Path(path).parts[-2:]))


def _uri(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode("ascii")


def page(content: Content, pictures: Sequence[Embedded] = ()) -> str:
    """The whole page, details and all."""
    own = files("bdaudit.report")
    style = own.joinpath("page.css").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, finalize=_finalize)
    environment.tests["kind"] = lambda block, name: type(block).__name__ == name
    return environment.from_string(own.joinpath("page.html").read_text(encoding="utf-8")).render(
        content=content,
        style=Markup(style),  # our own file; nothing of a report enters it
        style_hash=base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii"),
        pictures=pictures,
    )


def _finalize(value: object) -> object:
    return inert(value) if isinstance(value, str) and not isinstance(value, Markup) else value
