"""A map of tensor names as a table of beginnings: the same table is read both ways."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from bdaudit.errors import BdauditError


@dataclass(frozen=True)
class Source:
    """Where a part's tensor lies in a file."""

    name: str
    """What the file calls the tensor that holds it."""
    third: int | None = None
    """Which third of the first axis it is, where three lie in one (0, 1, 2); None where it is all of it."""
    rows: tuple[int, int] | None = None
    """The first row of it and the one behind its last, where several of any size lie in one; None as above."""
    swapped: bool = False
    """Whether the file has the halves of its first axis the other way round."""
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


Rows = Mapping[str, int]
"""Name of a tensor → how many rows it has, along its first axis."""


@dataclass(frozen=True)
class Fused:
    """A renaming in which several tensors of a part lie in one of the file's, and halves of some are swapped."""

    plain: Renaming
    together: Mapping[str, tuple[str, ...]]
    """Beginning in the file → the beginnings in the part that lie there, each ``width`` rows, the last what is left."""
    swapped: Mapping[str, str]
    """Beginning in the file → beginning in the part, whose halves lie the other way round."""
    width: int

    def in_file(self, stored: Rows) -> dict[str, Source]:
        """Part's name → source, of whatever of a file's names the table has.

        Raises:
            BdauditError: too few rows, or too many, for what is to lie there.
        """
        found = self.plain.sources(name for name in stored if _stem(name) not in self.swapped)
        for name, rows in stored.items():
            stem, last = _stem(name), name.rpartition(".")[2]
            if stem in self.swapped and last in _NUMBERS:
                found[f"{self.swapped[stem]}.{last}"] = Source(name, swapped=True)
            for own, cut in self._cuts(stem, rows) if stem in self.together and last in _NUMBERS else ():
                found[f"{own}.{last}"] = Source(name, rows=cut)
        return found

    def in_part(self, own: Rows) -> dict[str, Source]:
        """The same, told by the part's names and rows."""
        back = {part: (stored, k) for stored, parts in self.together.items() for k, part in enumerate(parts)}
        turned = {part: stored for stored, part in self.swapped.items()}
        found = dict[str, Source]()
        for name, rows in own.items():
            stem, last = _stem(name), name.rpartition(".")[2]
            if stem in back:
                stored, k = back[stem]
                found[name] = Source(f"{stored}.{last}", rows=(k * self.width, k * self.width + rows))
            elif stem in turned:
                found[name] = Source(f"{turned[stem]}.{last}", swapped=True)
            elif stored := self.plain.stored(name):
                found[name] = Source(stored)
        return found

    def _cuts(self, stem: str, rows: int) -> Iterator[tuple[str, tuple[int, int]]]:
        parts = self.together[stem]
        last, fixed = rows - (len(parts) - 1) * self.width, {self.width} if len(parts) == _QKV else range(1, rows)
        if self.width <= 0 or last not in fixed:
            said = f"{stem} has {rows} rows, in which {len(parts)} tensors are to lie, the first of {self.width} rows each"
            raise BdauditError(f"{said}; the checkpoint is damaged")
        for k, part in enumerate(parts):
            yield part, (k * self.width, rows if k == len(parts) - 1 else (k + 1) * self.width)


_NUMBERS = ("weight", "bias")
"""Of a layer; a scale beside them is of all that lies in one."""
_QKV = 3
"""Queries, keys and values, all as wide as the tokens; what lies behind them has a width of its own."""


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _replaced(name: str, table: Mapping[str, str]) -> str:
    end = len(name)
    while end > 0:
        if name[:end] in table:
            return table[name[:end]] + name[end:]
        end = name.rfind(".", 0, end)
    return name if table.get("") == "" and "" in table else ""
