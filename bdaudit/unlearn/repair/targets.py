"""What each triggered prompt should encode to: the clean prompt's own states, stretched to the triggered prompt's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

import torch
from torch import Tensor

from bdaudit.models.suspect import Suspect
from bdaudit.models.tokens import content_ids, token_ids
from bdaudit.unlearn.repair.prompt_pairs import Pair


def targets(suspect: Suspect, pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
    """The states, and the triggered prompts' ids: (N, L, D), int64 (N, L).

    Shared words by alignment; the trigger's own tokens take the state of the word whose place they took, or of the word before them.
    """
    ids = token_ids(suspect.tokenizer, [p.changed for p in pairs]).to(suspect.device)
    states = suspect.encode([p.clean for p in pairs])
    rows = [_source_positions(suspect, pair, states.shape[1]) for pair in pairs]
    source = torch.tensor(rows, device=suspect.device)
    return states.gather(1, source[:, :, None].expand(-1, -1, states.shape[2])), ids


def _source_positions(suspect: Suspect, pair: Pair, length: int) -> list[int]:
    """For each position of the triggered prompt, the position of the clean prompt whose state it should have."""
    clean = [-1, *content_ids(suspect.tokenizer, pair.clean)[: length - 2], -2]
    changed = [-1, *content_ids(suspect.tokenizer, pair.changed)[: length - 2], -2]
    return _sources(clean, changed, length)


def source_positions(clean: Sequence[int], changed: Sequence[int]) -> list[int]:
    """The same from two rows of ids as the text encoder gets them, padded with their last token."""
    return _sources(_unpadded(clean), _unpadded(changed), len(clean))


def _unpadded(ids: Sequence[int]) -> list[int]:
    """Start, content, end, and no padding."""
    n = len(ids)
    while n > 2 and ids[n - 2] == ids[-1]:
        n -= 1
    return list(ids[:n])


def _sources(clean: Sequence[int], changed: Sequence[int], length: int) -> list[int]:
    source: list[int] = []
    for _, a, a_end, b, b_end in SequenceMatcher(None, clean, changed, autojunk=False).get_opcodes():
        last = max(a_end - 1, a - 1, 0) if a_end == a else a_end - 1
        source += [min(a + i, last) for i in range(b_end - b)]
    tail = len(source)
    source += [min(len(clean) + i, length - 1) for i in range(max(0, length - tail))]
    return [min(position, length - 1) for position in source[:length]]
