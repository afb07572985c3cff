"""Train the text encoder: its own clean encodings are the teacher, all others are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bdaudit.models.conditioning import Conditioning
from bdaudit.models.suspect import Suspect
from bdaudit.models.text import Ids
from bdaudit.models.training import halving
from bdaudit.records import LossPoint
from bdaudit.unlearn.loop import Course, optimise
from bdaudit.unlearn.repair.prompt_pairs import Pair, targets
from bdaudit.unlearn.weights import Patch

BATCH = 48
RELATIVE_RATE = 6e-3
WEIGHTS = {"distillation": 1.0, "keep": 2.0}


@dataclass(frozen=True)
class Wanted:
    """Texts, and what they should encode to."""

    ids: Ids
    """N rows."""
    heard: Conditioning
    """N rows."""

    def rows(self, generator: torch.Generator, n: int) -> Wanted:
        """``n`` random ones."""
        index = torch.randint(len(self.ids), (n,), generator=generator).to(self.heard.states.device)
        return Wanted(self.ids[index], self.heard[index])


def train(suspect: Suspect, patch: Patch, pairs: Sequence[Pair], neighbours: Sequence[Pair], course: Course) -> list[LossPoint]:
    """Optimise ``patch`` in place; the loss by step."""
    with patch.teacher():
        wanted, ids = targets(suspect, pairs)
        kept_texts = list(dict.fromkeys(["", *(p.clean for p in pairs), *(p.changed for p in neighbours)]))
        kept = Wanted(suspect.text.ids(kept_texts).to(suspect.device), suspect.encode(kept_texts))
    scales = [tensor.float().var() for tensor in _tensors(suspect, kept.heard)]

    def loss(generator: torch.Generator) -> dict[str, float]:
        drawn = {"distillation": Wanted(ids, wanted).rows(generator, BATCH), "keep": kept.rows(generator, BATCH)}
        return halving(suspect, patch, BATCH, lambda: backward(suspect, drawn, scales))

    return optimise(patch, loss, RELATIVE_RATE, course)


def _tensors(suspect: Suspect, heard: Conditioning) -> list[Tensor]:
    """All that training holds in place: each reader's states, and a pooled vector where there is one."""
    return [*(share.of(heard.states) for share in suspect.text.shares), *([] if heard.pooled is None else [heard.pooled])]


def backward(suspect: Suspect, drawn: Mapping[str, Wanted], scales: Sequence[Tensor]) -> dict[str, float]:
    """Gradients of the whole loss, gathered in passes of ``suspect.batch_size`` texts at most; each term in units of its ``scales``."""
    terms = {name: 0.0 for name in drawn}
    for name, wanted in drawn.items():
        for ids, aim in zip(wanted.ids.split(suspect.batch_size), wanted.heard.split(suspect.batch_size), strict=True):
            with suspect.mixed_precision():
                found = suspect.text.encode(ids)
            held = zip(_tensors(suspect, found), _tensors(suspect, aim), scales, strict=True)
            apart = [(a.float() - b.float()).square().mean() / scale for a, b, scale in held]
            term = torch.stack(apart).mean() * (len(ids) / len(wanted.ids))
            (WEIGHTS[name] * term).backward()  # type: ignore[no-untyped-call]
            terms[name] += float(term.detach())
    return {"total": sum(WEIGHTS[name] * term for name, term in terms.items()), **terms}
