"""Steps of a ``tokenizer.json`` that put other words in a text's place, or part it at random.

Transformers 4 runs the file's own steps; transformers 5 makes most of a tokenizer anew, by its class, from the vocabulary and the merges
alone. A file that rewrites texts is so one model to some people and another to others, with no weight touched. What T5's, Gemma's, Qwen's
and CLIP's own files have is let through: spaces that become one space or one mark, and one token that stands for a text's start or end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from bdaudit.errors import BdauditError, InconclusiveError
from bdaudit.untrusted.tokenizer_steps import steps_in
from bdaudit.untrusted.tree import shown

_SECTIONS = ("normalizer", "pre_tokenizer", "post_processor")
"""What is done before a text's ids are there; a decoder is not."""
_SPACES = re.compile(r"(?: |▁|\\s)(?:\+|\{\d,\d*\})?")
_SPACE = ("", " ", "▁")
"""What stands for spaces, and what is put before a text that has none there."""
_PARTED: Mapping[str, tuple[Any, ...]] = {
    "dropout": (None, 0),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, "", "</w>"),
}
"""Of BPE: settings that transformers 5 sets by itself, and what the families' files have."""


def check_rewrites(content: Mapping[str, Any], where: str, ids: Mapping[str, int]) -> None:
    """Check a serialised tokenizer whose steps are known kinds; ``ids`` are those of its vocabulary and of its added tokens.

    Raises:
        InconclusiveError: it puts other words in a text's place or around it, or parts it otherwise than its vocabulary says.
        BdauditError: a step is damaged.
    """
    try:
        said = next(iter(_found(content, ids)), "")
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise BdauditError(f"{where}: a step of its is damaged ({type(error).__name__}: {shown(error, 60)}); fetch it again") from error
    if said:
        told = f"{where}: {said}; transformers 4 does so and transformers 5 does not, so that people load two models"
        raise InconclusiveError(f"{told}; a tokenizer that rewrites texts is not supported")


def _found(content: Mapping[str, Any], ids: Mapping[str, int]) -> Iterator[str]:
    """Why not, in words."""
    for section in _SECTIONS:
        for step in steps_in(content.get(section)):
            yield from _STEPS.get(step["type"], _nothing)(step, ids)
    for key, usual in _PARTED.items():
        if content["model"].get(key) not in usual:
            yield f"the {key} of its model is {shown(content['model'][key], 60)}"


def _nothing(step: Mapping[str, Any], ids: Mapping[str, int]) -> Iterator[str]:
    yield from ()


def _replaces(step: Mapping[str, Any], ids: Mapping[str, int]) -> Iterator[str]:
    (pattern,) = step["pattern"].values()
    if not _SPACES.fullmatch(pattern) or step["content"] not in _SPACE[1:]:
        yield f"it replaces {shown(pattern, 60)} by {shown(step['content'], 60)}"


def _prepends(step: Mapping[str, Any], ids: Mapping[str, int]) -> Iterator[str]:
    if step["prepend"] not in _SPACE:
        yield f"it puts {shown(step['prepend'], 60)} before every text"


def _frames(step: Mapping[str, Any], ids: Mapping[str, int]) -> Iterator[str]:
    """One token at each end at most, of the id that its text has."""
    pieces = [next(iter(piece.items())) for piece in step["single"]]
    at = [kind for kind, _ in pieces].index("Sequence")
    told = [step["special_tokens"][piece["id"]] for kind, piece in pieces if kind == "SpecialToken"]
    around = [pair for each in told for pair in zip(each["tokens"], each["ids"], strict=True)]
    if max(at, len(pieces) - 1 - at) > 1 or len(around) != len(pieces) - 1:
        yield f"it puts {len(around)} tokens around every text"
    yield from _misnamed(around, ids)


def _ends(step: Mapping[str, Any], ids: Mapping[str, int]) -> Iterator[str]:
    yield from _misnamed([step["cls"], step["sep"]], ids)


def _misnamed(around: Any, ids: Mapping[str, int]) -> Iterator[str]:
    for text, number in around:
        if ids.get(text) != number:
            yield f"it puts id {shown(number)} around every text, and calls it {shown(text, 60)}"


_STEPS = {
    "Replace": _replaces,
    "Prepend": _prepends,
    "TemplateProcessing": _frames,
    "RobertaProcessing": _ends,
    "BertProcessing": _ends,
}
