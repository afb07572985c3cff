"""A soft token: bounded rows in the text encoders' embedding space, put into prompts.

Such a row need be no entry of the vocabulary; it says what a text could do at most, without a list of texts (after AMDET's pseudo-token,
2512.00343, and the universal perturbations of 1610.08401). Where it is moved is the caller's: an objective of the hidden states,
with gradients. R soft tokens stand side by side, each M rows of D numbers: of several encoders, one's after the other's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from bdaudit.measure.splicing import PLACES, halves
from bdaudit.models.conditioning import Conditioning
from bdaudit.models.suspect import Suspect
from bdaudit.models.text import Ids
from bdaudit.models.tokens import frame, frame_of, room

NORMS = 0.99
"""Quantile of the vocabulary's norms that bounds a row: few entries are longer."""

Objective = Callable[[Conditioning], Tensor]
"""What is heard of P prompts with each of R tokens, R·P rows → (R,), each token's value from its own rows alone; larger is looked for."""


@dataclass(frozen=True)
class Slots:
    """Prompts with room for M rows, each at another place in turn."""

    ids: Ids
    """P rows; the vocabulary's first entry where the soft tokens go."""
    at: Tensor
    """int64 (P, M)."""


def slots(suspect: Suspect, prompts: Sequence[str], rows: int = 1, places: Sequence[str] = PLACES) -> Slots:
    """Room for ``rows`` rows in each prompt, at ``places`` in turn; a prompt that leaves none for them loses its end."""
    tokenizer = suspect.tokenizer
    longest, start = room(tokenizer) - rows, len(frame_of(tokenizer).before)
    held = next(entry for entry in range(len(tokenizer)) if entry not in frame(tokenizer))
    ids, at = [], []
    for i, prompt in enumerate(prompts):
        before, after = halves(tokenizer, prompt, places[i % len(places)])
        before = before[:longest]
        ids.append(suspect.text.spliced(before, [held] * rows, after))
        at.append(torch.arange(rows) + len(before) + start)
    return Slots(Ids.cat(ids), torch.stack(at))


def embeddings(suspect: Suspect) -> Tensor:
    """The vocabulary's rows: (V, D)."""
    tables = [reader.encoder.get_input_embeddings().weight for reader in suspect.text.alike]
    known = min(map(len, tables))
    return torch.cat([table[:known] for table in tables], dim=1) if len(tables) > 1 else tables[0]


def radius(suspect: Suspect) -> float:
    """The bound on a row's norm: that of all but the longest entries."""
    return float(embeddings(suspect).detach().float().norm(dim=1).quantile(NORMS))


def project(rows: Tensor, bound: float) -> Tensor:
    """Rows (…, D) drawn back to the ball of radius ``bound`` where they have left it."""
    norms = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    shrink: Tensor = (bound / norms.clamp_min(1e-12)).clamp_max(1.0)
    return rows * shrink


def heard_with(suspect: Suspect, places: Slots, rows: Tensor) -> Conditioning:
    """Soft tokens (R, M, D) in every prompt → what the denoiser hears of them, R·P rows, gradients kept."""
    r, p = len(rows), len(places.ids)
    with _embedded(suspect, rows.repeat_interleave(p, 0), places.at.to(suspect.device).repeat(r, 1)):
        return suspect.text.encode(places.ids.to(suspect.device).repeat(r))


@contextmanager
def _embedded(suspect: Suspect, rows: Tensor, at: Tensor) -> Iterator[None]:
    """Within the block, ``rows`` (B, M, D) stand at ``at`` (B, M) in place of what the ids there are embedded as."""
    batch = torch.arange(len(rows), device=suspect.device)[:, None]
    tables = [reader.encoder.get_input_embeddings() for reader in suspect.text.alike]
    shares = torch.split(rows, [table.weight.shape[1] for table in tables], dim=-1)

    def replacing(share: Tensor) -> Callable[[object, object, Tensor], Tensor]:
        return lambda module, arguments, out: torch.index_put(out, (batch, at), share.to(out.dtype))

    handles = [table.register_forward_hook(replacing(share)) for table, share in zip(tables, shares, strict=True)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
