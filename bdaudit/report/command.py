"""What to type next: whatever a path or a trigger holds, it stays one argument in a shell and is taken for no flag."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path

from bdaudit.spelling.reader import spelled


def typed(verb: str, model: Path | str, *arguments: str) -> str:
    """``bdaudit VERB MODEL ARGUMENTS``, each quoted where a shell would read more into it than text."""
    return shlex.join(["bdaudit", verb, place(model), *arguments])


def place(path: Path | str) -> str:
    """A path that does not begin like a flag."""
    text = str(path)
    return f"./{text}" if text.startswith("-") else text


def trigger_flags(triggers: Iterable[str]) -> list[str]:
    """``--trigger`` and each text, spelled so that ``--trigger`` reads that very text."""
    return [argument for text in triggers for argument in ("--trigger", spelled(text))]


def size_flag(size: Sequence[int] | None) -> list[str]:
    """``--size`` and width × height, or nothing."""
    return ["--size", "x".join(map(str, size))] if size else []


def part_flags(config: Path | None, parts: Iterable[tuple[str, str, Path]]) -> list[str]:
    """``--config`` and ``--part``, as ``RunConfig`` has them."""
    named = [f"{of}{':' if of else ''}{part}={file}" for of, part, file in parts]
    return [*(["--config", place(config)] if config else []), *(argument for each in named for argument in ("--part", each))]


def template_flags(trusted: Iterable[str]) -> list[str]:
    """``--trust-template`` and each hash."""
    return [argument for each in trusted for argument in ("--trust-template", each)]


def machine_flags(device: str, dtype: str) -> list[str]:
    """``--device`` and ``--dtype``, where they were named: what did not fit one machine or precision fits no other the next time."""
    return [*(["--device", device] if device != "auto" else []), *(["--dtype", dtype] if dtype != "auto" else [])]


def prompts_flag(file: Path | str | None) -> list[str]:
    """``--prompts`` and the file, or nothing where the prompts are the built-in ones."""
    return ["--prompts", place(file)] if file else []


def adapter_flags(adapters: Iterable[tuple[Path, float]], of: str = "") -> list[str]:
    """``--lora`` and each file, with its scale where that is not 1; ``of`` stands before it where another model than MODEL has it."""
    scaled = (place(path) if scale == 1 else f"{place(path)}:{Decimal(repr(scale)):f}" for path, scale in adapters)
    return [argument for adapter in scaled for argument in ("--lora", f"{of}{adapter}")]
