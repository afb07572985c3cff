"""Token ids put between the words of a prompt: entries that no text reaches alone, and rows that are no entry at all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bdaudit.pipeline.tokens import Tokenizer, content_ids

PLACES = ("prefix", "suffix", "middle")
"""The first prompt's, the second's, and so on in turn."""
Halves = tuple[list[int], list[int]]


def halves(tokenizer: Tokenizer, prompt: str, place: str) -> Halves:
    """``prompt``'s ids before and after ``place``, which is between words."""
    words = prompt.split(" ")
    at = {"prefix": 0, "middle": len(words) // 2, "suffix": len(words)}[place]
    before, after = (list(content_ids(tokenizer, " ".join(part))) if part else [] for part in (words[:at], words[at:]))
    return before, after


def spliced(tokenizer: Tokenizer, around: Halves, ids: Sequence[int]) -> Tensor:
    """A prompt's ids (L,) with ``ids`` between its halves, as a word of their own: what ``insert`` does, for entries no text reaches.

    A row that gets too long is cut at the model's length, like any prompt.
    """
    content = [*around[0], *ids, *around[1]][: int(tokenizer.model_max_length) - 2]
    padding = [tokenizer.pad_token_id] * (int(tokenizer.model_max_length) - 2 - len(content))
    return torch.tensor([tokenizer.bos_token_id, *content, tokenizer.eos_token_id, *padding])
