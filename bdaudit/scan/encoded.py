"""What a candidate encodes to, by every reader of the model: two texts are one only where all of them read the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bdaudit.models.tokens import content_ids

if TYPE_CHECKING:
    from bdaudit.models.text import TextSide


@dataclass(frozen=True)
class Encoded:
    """A text's own token ids."""

    ids: tuple[int, ...]
    """The main reader's."""
    by_reader: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """Each reader's, after the folder of its encoder. CLIP reads small letters, T5 and language models capitals too."""

    @property
    def empty(self) -> bool:
        """Whether no reader hears anything of it."""
        return not self.ids and not any(ids for _, ids in self.by_reader)


def encoded(side: TextSide, text: str) -> Encoded:
    """``text`` by each reader of ``side``."""
    each = zip(side.modules, side.readers, strict=True)
    return Encoded(content_ids(side.main.tokenizer, text), tuple((name, content_ids(reader.tokenizer, text)) for name, reader in each))
