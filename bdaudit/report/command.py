"""What to type next: whatever a path or a trigger holds, it stays one argument in a shell and is taken for no flag."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path


def typed(verb: str, model: Path | str, *arguments: str) -> str:
    """``bdaudit VERB MODEL ARGUMENTS``, each quoted where a shell would read more into it than text."""
    return shlex.join(["bdaudit", verb, place(model), *arguments])


def place(path: Path | str) -> str:
    """A path that does not begin like a flag."""
    text = str(path)
    return f"./{text}" if text.startswith("-") else text


def trigger_flags(triggers: Iterable[str]) -> list[str]:
    """``--trigger`` and each text, all of it but ASCII letters, digits and spaces as an escape that ``--trigger`` reads."""
    return [argument for text in triggers for argument in ("--trigger", "".join(map(_escaped, text)))]


def adapter_flags(adapters: Iterable[tuple[Path, float]]) -> list[str]:
    """``--lora`` and each file, with its scale where that is not 1."""
    scaled = (place(path) if scale == 1 else f"{place(path)}:{Decimal(repr(scale)):f}" for path, scale in adapters)
    return [argument for adapter in scaled for argument in ("--lora", adapter)]


def _escaped(character: str) -> str:
    if (character.isascii() and character.isalnum()) or character == " ":
        return character
    point = ord(character)
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"
