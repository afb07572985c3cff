"""The flag of a config's field. Its help is the text below the field, its type and default the field's; what else it needs stands here."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

Kind = Literal[
    "plain", "model", "file", "folder", "new file", "new folder", "report", "texts", "suspects", "suspect", "trigger", "each", "adapter",
    "adapter of", "embedding",
    "contributor", "acceptances", "part", "swap", "size", "shares", "picture", "corner", "evidence",
]  # fmt: skip
"""How a value is typed; ``bdaudit.cli.values`` reads each."""


@dataclass(frozen=True)
class Flag:
    """Stands in a field's ``Annotated``, where the flag is not just ``--its-name`` and a value of its type."""

    kind: Kind = "plain"
    metavar: str = ""
    """What stands for the value in the help; empty for the kind's own."""
    name: str = ""
    """The flag; empty for the field's name."""
    short: str = ""
    """A letter for it, as ``-o``."""
    of: str = ""
    """Another field, whose flag this one is read from too; it has none of its own then."""


def flags(kind: type[Any]) -> Mapping[str, Flag]:
    """Field → its flag, the name filled in, of a dataclass."""
    return {name: flag for owner in reversed(kind.__mro__) for name, (flag, _) in declared(owner).items()}


@functools.cache
def declared(owner: type) -> Mapping[str, tuple[Flag, Any]]:
    """Field → its flag and its type, of the fields that a class has beside those that it inherits."""
    found = {}
    for field, hint in inspect.get_annotations(owner, eval_str=True).items():
        said = next((extra for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, Flag)), Flag())
        found[field] = replace(said, name=said.name or f"--{field.replace('_', '-')}"), hint
    return found
