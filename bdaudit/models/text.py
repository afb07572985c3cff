"""How a family reads a prompt: one or several tokenizers with their encoders, as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol

import torch
from torch import Tensor

from bdaudit.models.conditioning import Conditioning
from bdaudit.models.tokens import Tokenizer


@dataclass(frozen=True)
class Ids:
    """Token ids of B texts, padded as the pipeline pads them: one int64 (B, n) a reader."""

    by_reader: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.by_reader[0])

    def __getitem__(self, rows: Tensor | slice | Sequence[int]) -> Ids:
        return Ids(tuple(ids[rows] for ids in self.by_reader))

    def to(self, device: torch.device) -> Ids:
        """On ``device``."""
        return Ids(tuple(ids.to(device) for ids in self.by_reader))

    def repeat(self, n: int) -> Ids:
        """All rows, ``n`` times over."""
        return Ids(tuple(ids.repeat(n, 1) for ids in self.by_reader))

    def split(self, n: int) -> list[Ids]:
        """Parts of ``n`` rows, the last of what is left."""
        return [self[i : i + n] for i in range(0, len(self), n)]

    @staticmethod
    def cat(parts: Sequence[Ids]) -> Ids:
        """The rows of all parts."""
        return Ids(tuple(torch.cat(column) for column in zip(*(part.by_reader for part in parts), strict=True)))


@dataclass(frozen=True)
class Reader:
    """One tokenizer with its encoder."""

    tokenizer: Tokenizer
    encoder: Any
    """The module; a row of its input embeddings belongs to an entry of the tokenizer's vocabulary."""


@dataclass(frozen=True)
class Share:
    """What one reader has of the states (B, L, D)."""

    positions: slice
    channels: slice

    def of(self, states: Tensor) -> Tensor:
        """(B, L, D) → (B, l, d)."""
        return states[:, self.positions, self.channels]


def side_by_side(widths: Sequence[int]) -> tuple[Share, ...]:
    """Readers whose states stand beside each other at every position."""
    ends = list(accumulate(widths))
    return tuple(Share(slice(None), slice(end - width, end)) for end, width in zip(ends, widths, strict=True))


class TextSide(Protocol):
    """All readers of a family."""

    @property
    def modules(self) -> Mapping[str, torch.nn.Module]:
        """The encoders by the names of their folders."""

    @property
    def main(self) -> Reader:
        """The reader through whose vocabulary sweeps, splices and soft tokens go."""

    @property
    def readers(self) -> tuple[Reader, ...]:
        """All of them."""

    @property
    def alike(self) -> tuple[Reader, ...]:
        """Those with the main one's vocabulary, itself first: an entry of it is the same entry of theirs."""

    @property
    def crowds(self) -> bool:
        """Whether states that were encoded apart can stand together beside a prompt's, as the words of one prompt would."""

    def with_tokenizers(self, tokenizers: Sequence[Tokenizer]) -> TextSide:
        """The same encoders with other tokenizers, one a reader."""

    def ids(self, texts: Sequence[str]) -> Ids:
        """As the pipeline itself encodes."""

    def spliced(self, before: Sequence[int], entries: Sequence[int], after: Sequence[int]) -> Ids:
        """One prompt with ``entries`` of the main reader's vocabulary between its two halves' entries; what gets too long is cut. A reader
        with another vocabulary gets the text that they decode to."""

    def bare(self, rows: Sequence[Sequence[int]]) -> Ids:
        """Short texts of entries, all of one length, without padding."""

    def encode(self, ids: Ids) -> Conditioning:
        """Gradients kept."""

    def own_positions(self, clean: str, changed: str) -> list[int]:
        """Positions in the states of ``changed`` of the tokens that ``clean`` has not."""

    def words(self, ids: Ids) -> Tensor:
        """Which positions of the states hold words, not starts, ends and padding: bool (B, L)."""

    @property
    def shares(self) -> tuple[Share, ...]:
        """Of each reader that has one in the states."""

    def aligned(self, clean: str, changed: str) -> tuple[list[tuple[int, int]], list[int]]:
        """Pairs of positions in the states of two texts that hold the same word, starts and ends among them; and those of ``changed`` that
        ``clean`` has not."""

    def summary(self, heard: Conditioning) -> Tensor:
        """What has heard every word, to measure how far a text moves the encoding: (B, S)."""

    def stretched(self, clean: Ids, changed: Ids, heard: Conditioning) -> Conditioning:
        """What ``changed`` should encode to: the states of ``clean``, ``heard``, token by token; a token that was put in takes the state
        of the word whose place it took, or of the word before it."""

    def unconditional(self) -> Conditioning:
        """What guidance is counted from: one row."""
