"""A map of tensor names as a table of beginnings: the same table is read both ways."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Source:
    """Where a part's tensor lies in a file."""

    name: str
    """What the file calls the tensor that holds it."""
    third: int | None = None
    """Which third of the first axis it is, where three lie in one (0, 1, 2); None where it is all of it."""
    transposed: bool = False
    """Whether the file has its two axes the other way round."""
    flat: bool = False
    """Whether the file may have it as a convolution of one pixel, with two axes more."""


@dataclass(frozen=True)
class Renaming:
    """Names by whole beginnings: ``a.b`` stands for ``a.b`` and ``a.b.weight``, never for ``a.bc``. The longest that fits counts."""

    pairs: Mapping[str, str]
    """Beginning in the file → beginning in the part, each once. The empty one stands for every name."""

    @cached_property
    def _back(self) -> dict[str, str]:
        return {own: stored for stored, own in self.pairs.items()}

    def own(self, stored: str) -> str:
        """The part's name of a file's; empty where the table has none."""
        return _replaced(stored, self.pairs)

    def stored(self, own: str) -> str:
        """The file's name of a part's; empty where the table has none."""
        return _replaced(own, self._back)

    def sources(self, stored: Iterable[str]) -> dict[str, Source]:
        """Part's name → source, of whatever of a file's names the table has."""
        return {own: Source(name) for name in stored if (own := self.own(name))}


def _replaced(name: str, table: Mapping[str, str]) -> str:
    end = len(name)
    while end > 0:
        if name[:end] in table:
            return table[name[:end]] + name[end:]
        end = name.rfind(".", 0, end)
    return name if table.get("") == "" and "" in table else ""
