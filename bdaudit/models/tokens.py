"""What a text encodes to, and which token of one prompt is which token of another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from bdaudit.errors import BdauditError, InconclusiveError
from bdaudit.untrusted.layouts.layout import Reading
from bdaudit.untrusted.tree import shown

if TYPE_CHECKING:
    from torch import Tensor

_LONGEST = 1_000_000
"""Characters of a text with all vectors written out; an encoder reads 77 tokens."""

Tokenizer = Any
"""A ``transformers`` CLIP tokenizer, or a ``Framed`` one; the package ships no types for it."""
_START, _END = ("▁", "Ġ"), "</w>"
"""How vocabularies mark the start of a word, those of SentencePiece and of bytes; and how CLIP's marks its end."""


@dataclass(frozen=True)
class Frame:
    """What stands around a text's own ids."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    dropped: int = 0
    """Positions at the start that the denoiser never hears."""


class Framed:
    """Another tokenizer than CLIP's, as its pipeline puts texts to it; what is not said here is the tokenizer's own."""

    def __init__(self, inner: Any, reading: Reading) -> None:
        """``inner`` as it was loaded.

        Raises:
            InconclusiveError: it does not put a text between what it puts around the empty one.
        """
        self.inner, self.reading = inner, _measured(inner, reading)
        self.model_max_length = self.reading.length
        self.padding_side = "right"
        self._space = " " if reading.prefix.endswith(" ") else ""
        self.frame = self._frame()

    def __getattr__(self, name: str) -> Any:
        if name == "inner" or name.startswith("__"):  # what a copy has not yet, and what Python asks every object for
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __len__(self) -> int:
        return len(self.inner)

    def __call__(self, text: str | Sequence[str], **options: Any) -> Any:
        """Ids as the pipeline gets them; without special tokens those of the text alone, in which the instruction around it has no part."""
        bare = options.get("add_special_tokens") is False
        before, after = ("", "") if bare else (self.reading.prefix.removesuffix(" "), self.reading.suffix)
        put = [f"{before}{self._tidied(each)}{after}" for each in ([text] if isinstance(text, str) else text)]
        return self.inner(put[0] if isinstance(text, str) else put, padding_side="right", **options)

    def _tidied(self, text: str) -> str:
        """A space at the prefix's end goes with the text, whose first word it is a part of in vocabularies that mark words' starts."""
        return self._space + (text.lower().strip() if self.reading.lower else text)

    def _frame(self) -> Frame:
        whole, own = self("a").input_ids, self("a", add_special_tokens=False).input_ids
        at = next((i for i in range(len(whole)) if whole[i : i + len(own)] == own and self._fits(whole, i, own)), None)
        if at is None:
            raise InconclusiveError("the tokenizer joins a text with what the pipeline puts around it, which is not supported")
        return Frame(tuple(whole[:at]), tuple(whole[at + len(own) :]), self.reading.dropped)

    def _fits(self, whole: Sequence[int], at: int, own: Sequence[int]) -> bool:
        """Whether another text stands in the same place."""
        other = self("red cat", add_special_tokens=False).input_ids
        return bool(self("red cat").input_ids == [*whole[:at], *other, *whole[at + len(own) :]])


def _measured(tokenizer: Any, reading: Reading) -> Reading:
    """With the length that an instruction has in the tokenizer's own ids: all but its first and its last are dropped of the states."""
    if not reading.instruction:
        return reading
    beside = len(tokenizer(reading.prefix).input_ids) - 2
    return replace(reading, length=reading.length + beside, dropped=beside)


def framed(tokenizer: Any, reading: Reading | None) -> Tokenizer:
    """The tokenizer as its pipeline uses it."""
    return tokenizer if reading is None else Framed(tokenizer, reading)


def frame_of(tokenizer: Tokenizer) -> Frame:
    """What stands around a text: of CLIP's a start and an end."""
    own: Frame | None = getattr(tokenizer, "frame", None)
    return own or Frame((tokenizer.bos_token_id,), (tokenizer.eos_token_id,))


def room(tokenizer: Tokenizer) -> int:
    """How many ids of a text are read."""
    around = frame_of(tokenizer)
    return int(tokenizer.model_max_length) - len(around.before) - len(around.after)


def row_of(tokenizer: Tokenizer, content: Sequence[int], length: int = 0) -> list[int]:
    """``content`` in its frame, cut and padded as a text is to the model's length, or to ``length``."""
    around, own = frame_of(tokenizer), list(content)[: room(tokenizer)]
    whole = [*around.before, *own, *around.after]
    return whole + [tokenizer.pad_token_id] * ((length or int(tokenizer.model_max_length)) - len(whole))


def word_of(piece: str) -> str:
    """The word that an entry may be by itself, as far as its vocabulary marks words; empty for a piece of one."""
    return piece[1:] if piece.startswith(_START) else piece.removesuffix(_END) if piece.endswith(_END) else ""


def expanded(tokenizer: Tokenizer, text: str) -> str:
    """``text`` with every embedding of several vectors written out, ``<toy> <toy>_1``, as the stock pipeline does before it encodes.

    ``TextualInversionLoaderMixin.maybe_convert_prompt``; where one such name lies in another, in the order of the text.

    Raises:
        BdauditError: names that lie in one another make a text that no memory holds.
    """
    several = _several(tokenizer, len(tokenizer))
    for token in dict.fromkeys(tokenizer.tokenize(text)) if several else ():
        whole = several.get(token, token)
        if len(text) + text.count(token) * (len(whole) - len(token)) > _LONGEST:
            raise BdauditError(
                f"the tokenizer's added tokens make more than {_LONGEST:,} characters of {shown(text)}; its files are damaged"
            )
        text = text.replace(token, whole)
    return text


@lru_cache(maxsize=8)
def _several(tokenizer: Tokenizer, entries: int) -> dict[str, str]:
    """Name of an embedding of several vectors → all their names; ``entries`` is how many there are, since a tokenizer can grow."""
    added, found = tokenizer.added_tokens_encoder, {}
    for token in added:
        names = [token]
        while f"{token}_{len(names)}" in added:
            names.append(f"{token}_{len(names)}")
        if len(names) > 1:
            found[token] = " ".join(names)
    return found


def without_cache(part: Any) -> Any:
    """A tokenizer that remembers no word, since its library (tokenizers 0.23) never gives that memory back; a scheduler as it is."""
    model: Any = getattr(getattr(part, "backend_tokenizer", None), "model", None)
    if hasattr(model, "_resize_cache"):
        model._resize_cache(0)
    return part


def token_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> Tensor:
    """Padded and truncated as Stable Diffusion does it: int64 (B, L), L the model's maximum."""
    whole = [expanded(tokenizer, text) for text in texts]
    encoded = tokenizer(whole, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt")
    ids: Tensor = encoded.input_ids
    return ids


def content_ids(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    """The ids of ``text`` alone, without start and end; empty where the tokenizer drops all of it."""
    return tuple(tokenizer(expanded(tokenizer, text), add_special_tokens=False).input_ids)


def contents(tokenizer: Tokenizer, texts: Sequence[str]) -> list[tuple[int, ...]]:
    """``content_ids`` of many texts, in one call of the tokenizer."""
    whole = [expanded(tokenizer, text) for text in texts]
    return [tuple(ids) for ids in tokenizer(whole, add_special_tokens=False).input_ids]


def text_of(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The text that encodes to just these ids, or an empty string where none is found: what they decode to, encoded again."""
    text: str = tokenizer.decode(list(ids), clean_up_tokenization_spaces=False).strip(" ")
    return text if text and content_ids(tokenizer, text) == tuple(ids) else ""


def frame(tokenizer: Tokenizer) -> frozenset[int]:
    """The start and the end, which are no words. What a tokenizer's files call special besides is their say: a prompt can hold it."""
    ends = {tokenizer.bos_token_id, tokenizer.eos_token_id} | ({tokenizer.pad_token_id} if isinstance(tokenizer, Framed) else set())
    return frozenset(ends - {None})


def is_truncated(tokenizer: Tokenizer, text: str) -> bool:
    """Whether the text encoder's length cuts something off ``text``."""
    return len(content_ids(tokenizer, text)) > room(tokenizer)


def alignment(clean: Sequence[int], changed: Sequence[int]) -> tuple[list[tuple[int, int]], list[int]]:
    """Which positions of two id sequences hold the same word: the common start and end first, then by longest matching blocks.

    Returns:
        Pairs (position in ``clean``, position in ``changed``), and the positions of ``changed`` that are its own:
        the trigger, whatever its length and wherever it stands.
    """
    head = _common(clean, changed)
    tail = _common(clean[head:][::-1], changed[head:][::-1])
    middle = (list(clean[head : len(clean) - tail]), list(changed[head : len(changed) - tail]))
    pairs = [(i, i) for i in range(head)]
    for block in SequenceMatcher(None, *middle, autojunk=False).get_matching_blocks():
        pairs += [(head + block.a + i, head + block.b + i) for i in range(block.size)]
    pairs += [(len(clean) - i, len(changed) - i) for i in range(tail, 0, -1)]
    shared = {b for _, b in pairs}
    return pairs, [i for i in range(len(changed)) if i not in shared]


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many ids both sequences start with."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def own_positions(tokenizer: Tokenizer, clean: str, changed: str) -> list[int]:
    """Positions in ``changed``'s encoding, as far as it is heard, of the tokens that ``clean`` has not."""
    around = frame_of(tokenizer)
    _, own = alignment(content_ids(tokenizer, clean), content_ids(tokenizer, changed))
    return [i + len(around.before) - around.dropped for i in own if i < room(tokenizer)]


def aligned(tokenizer: Tokenizer, clean: str, changed: str) -> tuple[list[tuple[int, int]], list[int]]:
    """As ``TextSide.aligned``, of the texts as far as they are read."""
    a, b = (content_ids(tokenizer, text)[: room(tokenizer)] for text in (clean, changed))
    return paired(frame_of(tokenizer), a, b)


def paired(around: Frame, a: Sequence[int], b: Sequence[int]) -> tuple[list[tuple[int, int]], list[int]]:
    """The same of two texts' own ids, as far as they are read."""
    pairs, own = alignment(a, b)
    first, start = around.dropped, len(around.before) - around.dropped
    head = [(i - first, i - first) for i in range(first, len(around.before))]
    tail = [(start + len(a) + i, start + len(b) + i) for i in range(len(around.after))]
    return [*head, *((i + start, j + start) for i, j in pairs), *tail], [i + start for i in own]


def content_mask(ids: Tensor, end: int) -> Tensor:
    """Which positions hold words: bool (B, L), start, end and padding False."""
    import torch  # here, so that texts are encoded without it

    ended = (ids == end).int().cumsum(1) > 0
    mask = ~ended
    mask[:, 0] = False
    return torch.as_tensor(mask)


def source_positions(clean: Sequence[int], changed: Sequence[int]) -> list[int]:
    """For each position of ``changed``, the position of ``clean`` whose state it should have; rows as the text encoder gets them, padded.

    Shared words by alignment; a token that was put in takes the state of the word whose place it took, or of the word before it.
    """
    length, clean, changed, source = len(clean), _unpadded(clean), _unpadded(changed), list[int]()
    for _, a, a_end, b, b_end in SequenceMatcher(None, clean, changed, autojunk=False).get_opcodes():
        last = max(a_end - 1, a - 1, 0) if a_end == a else a_end - 1
        source += [min(a + i, last) for i in range(b_end - b)]
    tail = len(source)
    source += [min(len(clean) + i, length - 1) for i in range(max(0, length - tail))]
    return [min(position, length - 1) for position in source[:length]]


def _unpadded(ids: Sequence[int]) -> list[int]:
    """Start, content, end, and no padding."""
    n = len(ids)
    while n > 2 and ids[n - 2] == ids[-1]:
        n -= 1
    return list(ids[:n])


def stretched(states: Tensor, ids: Tensor, changed: Tensor) -> Tensor:
    """The states that rows ``changed`` should have, those of rows ``ids`` token by token: (B, L, D), int64 (B, L) twice → (B, L, D)."""
    import torch  # here, so that texts are encoded without it

    rows = [source_positions(a, b) for a, b in zip(ids.tolist(), changed.tolist(), strict=True)]
    source = torch.tensor(rows, dtype=torch.long, device=states.device).view(len(states), states.shape[1], 1)
    return states.gather(1, source.expand_as(states))
