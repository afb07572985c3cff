"""What to type next: whatever a path or a trigger holds, it stays one argument in a shell and is taken for no flag."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from bdaudit.config import RunConfig
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


def part_flags(config: Path | None, parts: Iterable[tuple[str, str, Path]]) -> list[str]:
    """``--config`` and ``--part``, as ``RunConfig`` has them."""
    named = [f"{of}{':' if of else ''}{part}={file}" for of, part, file in parts]
    return [*(["--config", place(config)] if config else []), *(argument for each in named for argument in ("--part", each))]


def context_flags(contexts: Iterable[str]) -> list[str]:
    """``--context`` and each text."""
    return [argument for words in contexts for argument in ("--context", words)]


def opening_flags(asked: Mapping[str, Any]) -> list[str]:
    """``--variant`` and the leave with which a model was opened; ``asked`` is a report's ``config``."""
    variant, trusted = _given(asked, "variant"), _given(asked, "trusted_templates") or ()
    switches = [flag for name, flag in (("allow_pickle", "--allow-pickle"), ("strict", "--strict")) if asked.get(name) is True]
    return [*(["--variant", variant] if variant else []), *switches, *(part for each in trusted for part in ("--trust-template", each))]


def drawing_flags(asked: Mapping[str, Any]) -> list[str]:
    """``--size``, ``--guidance-scale`` and ``--prompts``, where they were given."""
    prompts, size, scale = (_given(asked, name) for name in ("prompts_file", "size", "guidance_scale"))
    named = ["--size", "x".join(map(str, size))] if isinstance(size, list) else []
    named += ["--guidance-scale", f"{scale:g}"] if isinstance(scale, int | float) else []
    return [*named, *(["--prompts", place(prompts)] if prompts else [])]


def machine_flags(asked: Mapping[str, Any]) -> list[str]:
    """``--device``, ``--dtype`` and ``--batch-size``, where they were named: what did not fit one machine fits no other the next time."""
    usual = {"device": RunConfig.device, "dtype": RunConfig.dtype, "batch_size": RunConfig.batch_size}
    named = {name: asked.get(name, default) for name, default in usual.items() if asked.get(name, default) != default}
    return [argument for name, value in named.items() for argument in (f"--{name.replace('_', '-')}", str(value))]


def _given(asked: Mapping[str, Any], name: str) -> Any:
    """None where a report says that it was not set."""
    value = asked.get(name)
    return None if value in ("not set", "") else value


def adapter_flags(adapters: Iterable[tuple[Path, float]], of: str = "") -> list[str]:
    """``--lora`` and each file, with its scale where that is not 1; ``of`` stands before it where another model than MODEL has it."""
    scaled = (place(path) if scale == 1 else f"{place(path)}:{Decimal(repr(scale)):f}" for path, scale in adapters)
    return [argument for adapter in scaled for argument in ("--lora", f"{of}{adapter}")]
