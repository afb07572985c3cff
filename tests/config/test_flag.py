"""A field's flag: its name, unless it says another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from bdaudit.config.flag import Flag, flags


@dataclass
class Base:
    n_prompts: int = 8
    words: Annotated[tuple[str, ...], Flag("each", "WORD", "--word")] = ()


@dataclass
class Derived(Base):
    file: Annotated[Path | None, Flag(of="words")] = None


def test_a_field_is_called_like_its_flag_unless_it_says_another() -> None:
    assert flags(Base) == {"n_prompts": Flag(name="--n-prompts"), "words": Flag("each", "WORD", "--word")}


def test_what_is_inherited_is_the_same() -> None:
    assert flags(Derived) == {**flags(Base), "file": Flag(of="words", name="--file")}
