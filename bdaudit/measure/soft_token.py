"""A soft token: bounded rows in the text encoder's embedding space, put into prompts.

Such a row need be no entry of the vocabulary; it says what a text could do at most, without a list of texts (after AMDET's pseudo-token,
2512.00343, and the universal perturbations of 1610.08401). Where it is moved is the caller's: an objective of the hidden states,
with gradients. R soft tokens stand side by side, each M rows of D numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from bdaudit.measure.splicing import PLACES, halves, spliced
from bdaudit.models.suspect import Suspect
from bdaudit.models.tokens import Tokenizer

NORMS = 0.99
"""Quantile of the vocabulary's norms that bounds a row: few entries are longer."""

Objective = Callable[[Tensor], Tensor]
"""Hidden states (R, P, L, D) → (R,), each token's value from its own states alone; larger is what is looked for."""


@dataclass(frozen=True)
class Slots:
    """Prompts with room for M rows, each at another place in turn."""

    ids: Tensor
    """int64 (P, L); padding where the rows go."""
    at: Tensor
    """int64 (P, M)."""


def slots(tokenizer: Tokenizer, prompts: Sequence[str], rows: int = 1) -> Slots:
    """Room for ``rows`` rows between the words of each prompt; a prompt that leaves none for them loses its end."""
    longest = int(tokenizer.model_max_length) - 2 - rows
    ids, at = [], []
    for i, prompt in enumerate(prompts):
        before, after = halves(tokenizer, prompt, PLACES[i % len(PLACES)])
        before = before[:longest]
        ids.append(spliced(tokenizer, (before, after), [tokenizer.pad_token_id] * rows))
        at.append(torch.arange(rows) + len(before) + 1)
    return Slots(torch.stack(ids), torch.stack(at))


def embeddings(suspect: Suspect) -> Tensor:
    """The vocabulary's rows: (V, D)."""
    table: Tensor = suspect.text_encoder.get_input_embeddings().weight
    return table


def radius(suspect: Suspect) -> float:
    """The bound on a row's norm: that of all but the longest entries."""
    return float(embeddings(suspect).detach().float().norm(dim=1).quantile(NORMS))


def project(rows: Tensor, bound: float) -> Tensor:
    """Rows (…, D) drawn back to the ball of radius ``bound`` where they have left it."""
    norms = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    shrink: Tensor = (bound / norms.clamp_min(1e-12)).clamp_max(1.0)
    return rows * shrink


def hidden_states(suspect: Suspect, places: Slots, rows: Tensor) -> Tensor:
    """Soft tokens (R, M, D) in every prompt → (R, P, L, D) hidden states as the UNet gets them, gradients kept."""
    r, p = len(rows), len(places.ids)
    with _embedded(suspect, rows.repeat_interleave(p, 0), places.at.to(suspect.device).repeat(r, 1)):
        states = suspect.hidden_states(places.ids.to(suspect.device).repeat(r, 1))
    return torch.unflatten(states, 0, (r, p))


@contextmanager
def _embedded(suspect: Suspect, rows: Tensor, at: Tensor) -> Iterator[None]:
    """Within the block, ``rows`` (B, M, D) stand at ``at`` (B, M) in place of what the ids there are embedded as."""
    batch = torch.arange(len(rows), device=suspect.device)[:, None]

    def replace(module: object, arguments: object, out: Tensor) -> Tensor:
        return torch.index_put(out, (batch, at), rows.to(out.dtype))

    handle = suspect.text_encoder.get_input_embeddings().register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()
