"""Train the text encoder: its own clean encodings are the teacher, all others are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bdaudit.config import UnlearnConfig
from bdaudit.models.suspect import Suspect
from bdaudit.models.tokens import token_ids
from bdaudit.models.training import halving
from bdaudit.records import LossPoint
from bdaudit.unlearn.loop import Hooks, optimise
from bdaudit.unlearn.repair.prompt_pairs import Pair
from bdaudit.unlearn.repair.targets import targets
from bdaudit.unlearn.weights import Patch

BATCH = 48
RELATIVE_RATE = 6e-3
WEIGHTS = {"distillation": 1.0, "keep": 2.0}


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
