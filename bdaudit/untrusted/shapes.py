"""Whether the configs describe the weights there are, so that no config can ask for more than its weights hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bdaudit.errors import BdauditError
from bdaudit.untrusted.safetensors_header import TensorInfo
from bdaudit.untrusted.tree import shown

Tensors = dict[str, TensorInfo]
_TABLES = ("token_embedding.weight", "shared.weight", "embed_tokens.weight")
"""What text encoders call the table of their tokens."""


def check_described(config: Mapping[str, Any], described: Mapping[str, Any], where: str) -> None:
    """Compare the sizes that a config asks for with those that its weights tell.

    Raises:
        BdauditError: they disagree.
    """
    for key, expected in described.items():
        if _plain(config.get(key, expected), expected) != expected:
            raise BdauditError(f"{where}: {key} is {shown(config[key])}, its weights have {shown(expected)}")


def numbers(value: Any) -> list[int]:
    """All whole numbers in nested lists."""
    if isinstance(value, list):
        return [each for inner in value for each in numbers(inner)]
    return [value] if type(value) is int else []


def _plain(value: Any, expected: Any) -> Any:
    """One number where ``expected`` is a list stands for all of it, and a list of equal numbers for one."""
    if isinstance(expected, list) and type(value) is int:
        return [value] * len(expected)
    if isinstance(expected, int) and isinstance(value, list) and value and all(v == value[0] for v in value):
        return value[0]
    return value


def embeddings(tensors: Tensors) -> int:
    """How many token ids a text encoder has embeddings for; 0 for another model."""
    return next((t.shape[0] for name, t in tensors.items() if name.endswith(_TABLES) and t.shape), 0)


def size(tensors: Tensors, name: str, axis: int) -> int:
    """A tensor's size along ``axis``.

    Raises:
        BdauditError: it is not there, or has no such axis.
    """
    shape = tensors[name].shape if name in tensors else ()
    if len(shape) <= axis:
        raise BdauditError(f"the weights lack {name}, or its shape is {list(shape)}; this is not the model that its config names")
    return shape[axis]


def counts(tensors: Tensors, pattern: str) -> dict[str, int]:
    """How many different second groups of ``pattern`` each first one has."""
    found: dict[str, set[str]] = {}
    for name in tensors:
        if match := re.match(pattern, name, re.ASCII):
            found.setdefault(match[1], set()).add(match[2])
    return {first: len(second) for first, second in found.items()}


def depth(tensors: Tensors, name: str) -> int:
    """How many layers the list ``name`` of a model holds."""
    return counts(tensors, rf"({re.escape(name)})\.(\d+)\.").get(name, 0)
