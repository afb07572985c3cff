"""Train the text encoder: its own clean encodings are the teacher, all others are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import torch
from torch import Tensor

from bdaudit.config import UnlearnConfig
from bdaudit.pipeline.suspect import Suspect
from bdaudit.pipeline.tokens import content_ids, token_ids
from bdaudit.pipeline.training import halving
from bdaudit.report.records import LossPoint
from bdaudit.unlearn.loop import Hooks, optimise
from bdaudit.unlearn.pairs import Pair
from bdaudit.unlearn.weights import Patch

BATCH = 48
RELATIVE_RATE = 6e-3
WEIGHTS = {"distillation": 1.0, "keep": 2.0}


def targets(suspect: Suspect, pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
    """What each triggered prompt should encode to, and its ids: (N, L, D), int64 (N, L).

    The clean prompt's own states, stretched to the triggered prompt's tokens: shared words by alignment, the trigger's own
    tokens take the state of the word whose place they took, or of the word before them.
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
    source: list[int] = []
    for _, a, a_end, b, b_end in SequenceMatcher(None, clean, changed, autojunk=False).get_opcodes():
        last = max(a_end - 1, a - 1, 0) if a_end == a else a_end - 1
        source += [min(a + i, last) for i in range(b_end - b)]
    tail = len(source)
    source += [min(len(clean) + i, length - 1) for i in range(max(0, length - tail))]
    return [min(position, length - 1) for position in source[:length]]


@dataclass(frozen=True)
class Wanted:
    """Texts, and what they should encode to."""

    ids: Tensor
    """int64 (N, L)."""
    states: Tensor
    """(N, L, D)."""

    def rows(self, generator: torch.Generator, n: int) -> Wanted:
        """``n`` random ones."""
        index = torch.randint(len(self.ids), (n,), generator=generator).to(self.ids.device)
        return Wanted(self.ids[index], self.states[index])


def train(
    suspect: Suspect, patch: Patch, pairs: Sequence[Pair], neighbours: Sequence[Pair], config: UnlearnConfig, hooks: Hooks
) -> list[LossPoint]:
    """Optimise ``patch`` in place; the loss by step."""
    with patch.teacher():
        wanted, ids = targets(suspect, pairs)
        kept_texts = list(dict.fromkeys(["", *(p.clean for p in pairs), *(p.changed for p in neighbours)]))
        kept = Wanted(token_ids(suspect.tokenizer, kept_texts).to(suspect.device), suspect.encode(kept_texts))
    scale = kept.states.float().var()

    def step(generator: torch.Generator) -> dict[str, float]:
        drawn = {"distillation": Wanted(ids, wanted).rows(generator, BATCH), "keep": kept.rows(generator, BATCH)}
        return halving(suspect, patch, BATCH, lambda: backward(suspect, drawn, scale))

    return optimise(patch, step, config, RELATIVE_RATE, hooks)


def backward(suspect: Suspect, drawn: Mapping[str, Wanted], scale: Tensor) -> dict[str, float]:
    """Gradients of the whole loss, gathered in passes of ``suspect.batch_size`` texts at most; the terms in units of ``scale``."""
    terms = {name: 0.0 for name in drawn}
    for name, wanted in drawn.items():
        for ids, states in zip(*(torch.split(tensor, suspect.batch_size) for tensor in (wanted.ids, wanted.states)), strict=True):
            with suspect.mixed_precision():
                found = suspect.hidden_states(ids).float()
            term = (found - states.float()).square().mean() / scale * (len(ids) / len(wanted.ids))
            (WEIGHTS[name] * term).backward()
            terms[name] += float(term.detach())
    return {"total": sum(WEIGHTS[name] * term for name, term in terms.items()), **terms}
