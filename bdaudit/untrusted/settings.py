"""What a setting may be: types and ranges, in words and as checks. Knows no model; the layouts list what each part takes.

A list of what is allowed: a value outside its range is an error, and a key that no list has is named and never handed to a library.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from bdaudit.errors import BdauditError
from bdaudit.untrusted.tree import shown

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_LONGEST = 100
"""Characters of a name."""
LONGEST_TOKEN = 1000
"""Characters of one token; CLIP's longest has 29. Libraries split each token in every way to derive merges."""


def is_name(value: object) -> bool:
    """Whether ``value`` is one plain ASCII identifier."""
    return isinstance(value, str) and len(value) <= _LONGEST and _NAME.fullmatch(value) is not None


@dataclass(frozen=True)
class Setting:
    """What one key may hold."""

    expected: str
    """In words, for a message."""
    fits: Callable[[Any], bool]


Settings = Mapping[str, Setting]
NULL = Setting("null", lambda value: value is None)
FLAG = Setting("true or false", lambda value: value is None or isinstance(value, bool))
"""Null is false, as old configs have it."""
NAME = Setting("a plain name", is_name)
WORD = Setting(f"a word of at most {_LONGEST} characters", lambda value: isinstance(value, str) and 0 < len(value) <= _LONGEST)
MAP = Setting("a map", lambda value: isinstance(value, dict))
TOKEN = Setting("a token of at most 1,000 characters, or its map", lambda value: value is None or token_text(value) is not None)
TOKENS = Setting("a list or a map of tokens", lambda value: value is None or all(map(TOKEN.fits, _members(value))))


def token_text(value: Any) -> str | None:
    """What a token says, be it written plainly or as a map; None for anything else, and for what is too long."""
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) and len(text) <= LONGEST_TOKEN else None


def _members(value: Any) -> list[Any]:
    """Of a list or a map; of anything else, what is no token."""
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else [NULL]


def whole(least: int, most: int) -> Setting:
    """A whole number from ``least`` to ``most``."""
    return Setting(f"a whole number of {least:,} to {most:,}", lambda value: type(value) is int and least <= value <= most)


def number(least: float, most: float) -> Setting:
    """A number from ``least`` to ``most``; no NaN."""
    return Setting(f"a number of {least:g} to {most:g}", lambda value: type(value) in (int, float) and least <= value <= most)


def listed(setting: Setting, most: int, least: int = 0) -> Setting:
    """A list of ``least`` to ``most`` of ``setting``."""
    words = f"a list of {least:,} to {most:,}, each {setting.expected}"
    return Setting(words, lambda value: isinstance(value, list) and least <= len(value) <= most and all(map(setting.fits, value)))


def either(*settings: Setting) -> Setting:
    """Any of ``settings``."""
    return Setting(" or ".join(each.expected for each in settings), lambda value: any(each.fits(value) for each in settings))


def optional(setting: Setting) -> Setting:
    """``setting``, or null."""
    return either(setting, NULL)


def check_settings(config: Mapping[str, Any], allowed: Settings, where: str) -> None:
    """Compare a config with what its part takes, before anything is built of it.

    Raises:
        BdauditError: a value of another type, or out of its range.
    """
    wrong = [key for key, value in config.items() if key in allowed and not allowed[key].fits(value)]
    if wrong:
        key = wrong[0]
        more = f" (and {len(wrong) - 1} more settings there are out of range)" if wrong[1:] else ""
        said = f"{where}: {shown(key)} is {shown(config[key], 80)}; expected {allowed[key].expected}{more}"
        raise BdauditError(f"{said}; set what the model was trained with, or fetch the file again")


def unknown_keys(config: Mapping[str, Any], allowed: Collection[str], idle: Collection[str]) -> tuple[str, ...]:
    """Keys that no list has. ``idle`` ones are known to set nothing, and those with an underscore are a library's own."""
    return tuple(key for key in config if key not in allowed and key not in idle and not key.startswith("_"))
