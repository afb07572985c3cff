"""The inner adversary: for each contributor a bounded soft token, moved to where a model departs furthest from what the base does with it.

A token's excess is ‖[ε(c + δ) − ε(c)] − [ε_0(c + δ) − ε_0(c)]‖², in units of what a prompt changes: what the token does in the model
beyond what it does in the base. Words that the base knows have little of it, however much they change the picture.
"""

from __future__ import annotations

from itertools import islice

import torch
from torch import Tensor

from bdaudit.measure import soft_token
from bdaudit.models.conditioning import Conditioning
from bdaudit.models.suspect import Suspect
from bdaudit.models.training import descend
from bdaudit.unlearn.merging.blend import Blend
from bdaudit.unlearn.merging.lessons import Lessons

SCREENED, STARTS, ROWS, STEPS, RATE = 64, 2, 4, 8, 0.2
"""Entries that are tried, starts of a contributor, rows a step, steps, and Adam's rate as a share of the root mean
square of a component at the bound."""


def start(base: Suspect, n: int, generator: torch.Generator) -> Tensor:
    """``n`` entries of the vocabulary: (n, 1, D)."""
    table = soft_token.embeddings(base).detach().float()
    return table[torch.randint(len(table), (n,), generator=generator).to(table.device)][:, None]


def excess(blend: Blend, base: Suspect, lessons: Lessons, tokens: Tensor, rows: Tensor, now: Tensor) -> Tensor:
    """Of each of K tokens (K, 1, D) on its own rows, int64 (K, n): (K,). ``now`` (K·n, C, H, W) is the blend's prediction without it."""
    own, origin = heard_with(blend, base, lessons, tokens, rows)
    flat = rows.flatten()
    z, t = lessons.z[flat], lessons.t[flat]
    moved = blend.suspect.predict(z, t, own) - now
    usual = base.predict(z, t, origin) - lessons.plain[flat]
    return torch.unflatten((moved - usual).square().flatten(1).mean(1), 0, rows.shape).mean(1) / lessons.scale


def heard_with(blend: Blend, base: Suspect, lessons: Lessons, tokens: Tensor, rows: Tensor) -> tuple[Conditioning, Conditioning]:
    """What the blend and the base hear of the rows' texts with their tokens in them: K·n rows each, gradients kept."""

    def heard(suspect: Suspect) -> Conditioning:
        parts = []
        for token, own in zip(tokens, lessons.text[rows].cpu(), strict=True):
            chosen = soft_token.Slots(lessons.slots.ids[own], lessons.slots.at[own])
            parts.append(soft_token.heard_with(suspect, chosen, token[None]))
        return Conditioning.cat(parts)

    origin = heard(base)
    return (heard(blend.suspect) if blend.speaks else origin), origin


class Attack:
    """Tokens on their way up."""

    def __init__(self, base: Suspect, tokens: Tensor) -> None:
        self.bound = soft_token.radius(base)
        self.tokens = soft_token.project(tokens, self.bound).requires_grad_(True)
        self.group = {"params": [self.tokens], "lr": RATE * self.bound / tokens.shape[-1] ** 0.5, "maximize": True}
        """What an optimiser needs to move them."""

    @torch.no_grad()
    def pull_back(self) -> None:
        """Into the ball again, after a step."""
        self.tokens.copy_(soft_token.project(self.tokens, self.bound))


def attack(blend: Blend, base: Suspect, lessons: Lessons, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The best of ``STARTS`` tokens against the model that the blend holds: (1, 1, D), and its excess (). They start at the strongest of
    ``SCREENED`` entries of the vocabulary."""
    with torch.no_grad():
        entries = start(base, SCREENED, generator)
        first = torch.cat([_on_drawn_rows(blend, base, lessons, part, 2, generator) for part in torch.split(entries, 16)])
    found = Attack(base, entries[first.topk(STARTS).indices])

    def backward(step: int) -> None:
        torch.autograd.backward(_on_drawn_rows(blend, base, lessons, found.tokens, ROWS, generator).sum(), inputs=[found.tokens])

    for _ in islice(descend(torch.optim.Adam([found.group]), backward), STEPS):
        found.pull_back()
    with torch.no_grad():
        value = _on_drawn_rows(blend, base, lessons, found.tokens, 2 * ROWS, generator)
    best = int(value.argmax())
    return found.tokens.detach()[best : best + 1], value[best]


def _on_drawn_rows(blend: Blend, base: Suspect, lessons: Lessons, tokens: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """The excess of every token on the same ``n`` rows, drawn anew: (K,)."""
    rows = torch.randint(len(lessons.z), (1, n), generator=generator).to(base.device).expand(len(tokens), -1)
    with torch.no_grad():
        now = predicted(blend, lessons, rows.flatten())
    return excess(blend, base, lessons, tokens, rows, now)


def predicted(blend: Blend, lessons: Lessons, rows: Tensor) -> Tensor:
    """The blend's prediction on rows (n,) of the lessons, gradients kept: (n, C, H, W)."""
    text = lessons.text[rows]
    heard = lessons.heard_by(blend.suspect, text) if blend.speaks else lessons.heard[text]
    return blend.suspect.predict(lessons.z[rows], lessons.t[rows], heard)
