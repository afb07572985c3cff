"""Train the denoiser: SKD-CAG with preservation, on precomputed latents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from bdaudit.models.attention import Recording, recorded
from bdaudit.models.conditioning import Conditioning
from bdaudit.models.suspect import Suspect
from bdaudit.models.training import checkpointed, halving
from bdaudit.records import LossPoint
from bdaudit.unlearn.loop import Course, optimise
from bdaudit.unlearn.repair import skd_cag
from bdaudit.unlearn.repair.prompt_pairs import Pair
from bdaudit.unlearn.repair.trajectories import Latents
from bdaudit.unlearn.weights import Patch

TRIGGERED, KEPT, EMPTY = 16, 24, 8
"""Latents a step: triggered ones, preserved ones (clean and neighbours, half and half), and ones under the empty prompt."""
RELATIVE_RATE = 4e-3
KEEP_WEIGHT = 2.0


@dataclass
class Material:
    """Everything a step draws from, encoded once."""

    latents: Latents
    clean: Conditioning
    """N rows: the clean prompt of each triggered pair."""
    triggered: Conditioning
    """N rows."""
    neighbours: Conditioning
    """M rows: prompts with a harmless neighbour in them."""
    neighbour_latents: Tensor
    """int64 (M,): the pair whose latents suit the neighbour's prompt."""
    empty: Conditioning
    """One row."""
    pairs: skd_cag.Alignment
    neutral: dict[str, float]
    """Share of attention that a harmless text draws, by layer."""
    scale: Tensor
    """(): mean square of what a prompt changes, ‖ε(c) − ε(∅)‖², the losses' unit."""


@torch.no_grad()
def prepare(suspect: Suspect, latents: Latents, pairs: Sequence[Pair], neighbours: Sequence[Pair]) -> Material:
    """Encode all texts, align all pairs, and measure what a harmless text draws."""
    first = {pair.clean: i for i, pair in reversed(list(enumerate(pairs)))}
    clean, triggered = (suspect.encode([getattr(p, side) for p in pairs]) for side in ("clean", "changed"))
    near_heard = suspect.encode([p.changed for p in neighbours])
    length = clean.states.shape[1]

    aligned, near = (
        skd_cag.align([suspect.text.aligned(pair.clean, pair.changed) for pair in each], length, suspect.device)
        for each in (pairs, neighbours)
    )
    home = torch.tensor([first[p.clean] for p in neighbours], device=suspect.device)
    material = Material(latents, clean, triggered, near_heard, home, suspect.unconditional(), aligned, {}, torch.ones(()))
    material.neutral = _neutral_share(suspect, material, near)
    rows = torch.arange(min(len(latents.z), 4 * suspect.batch_size), device=suspect.device)
    z, t = latents.z[rows], latents.t[rows]
    prompt = suspect.predict_batched(z, t, clean[latents.pair[rows]])
    nothing = suspect.predict_batched(z, t, material.empty.expand(len(rows)))
    material.scale = (prompt - nothing).float().square().mean()
    return material


def _neutral_share(suspect: Suspect, material: Material, near: skd_cag.Alignment) -> dict[str, float]:
    """Mean over the neighbours, each on latents of its own prompt."""
    rows = _rows_of_pairs(material.latents, material.neighbour_latents, torch.Generator().manual_seed(0))
    totals: dict[str, float] = {}
    with recorded(suspect.denoiser.sites()) as recording:
        for part in torch.split(torch.arange(len(rows), device=suspect.device), suspect.batch_size):
            recording.clear()
            suspect.predict(material.latents.z[rows[part]], material.latents.t[rows[part]], material.neighbours[part])
            for name, maps in recording.latest().items():
                share = float((maps * near.own[part][:, None, :]).sum(-1).mean(-1).sum())
                totals[name] = totals.get(name, 0.0) + share / len(rows)
    return totals


def _rows_of_pairs(latents: Latents, pairs: Tensor, generator: torch.Generator) -> Tensor:
    """A random row of the latents for each pair."""
    order = latents.pair.argsort(stable=True)
    counts = torch.bincount(latents.pair, minlength=int(latents.pair.max()) + 1)
    starts = counts.cumsum(0) - counts
    pick = (torch.rand(len(pairs), generator=generator).to(pairs.device) * counts[pairs]).long()
    return order[starts[pairs] + pick]


@dataclass(frozen=True)
class Batch:
    """What one step draws."""

    rows: Tensor
    """int64 (B,): rows of the latents that are denoised with the trigger."""
    kept_rows: Tensor
    """int64 (K,): rows that are denoised as before."""
    kept_heard: Conditioning
    """K rows: under what: clean prompts, the empty one, neighbours."""


def train(suspect: Suspect, patch: Patch, material: Material, weight: float, course: Course) -> list[LossPoint]:
    """Optimise ``patch`` in place; the loss by step. On a GPU with gradient checkpointing. ``weight`` is λ, the attention term's share."""

    def loss(generator: torch.Generator) -> dict[str, float]:
        batch = draw(suspect, material, generator)
        return halving(suspect, patch, KEPT + EMPTY, lambda: backward(suspect, patch, material, batch, weight))

    with checkpointed(suspect.denoiser.module, suspect.device.type == "cuda"):
        return optimise(patch, loss, RELATIVE_RATE, course)


def draw(suspect: Suspect, m: Material, generator: torch.Generator) -> Batch:
    """One step's rows."""

    def rows(n: int, high: int) -> Tensor:
        return torch.randint(high, (n,), generator=generator).to(suspect.device)

    triggered = rows(TRIGGERED, len(m.latents.z))
    near = rows(KEPT // 2, len(m.neighbours))
    near_rows = _rows_of_pairs(m.latents, m.neighbour_latents[near], generator)
    kept = torch.cat([rows(KEPT - KEPT // 2 + EMPTY, len(m.latents.z)), near_rows])
    clean = m.clean[m.latents.pair[kept[: KEPT - KEPT // 2]]]
    return Batch(triggered, kept, Conditioning.cat([clean, m.empty.expand(EMPTY), m.neighbours[near]]))


def backward(suspect: Suspect, patch: Patch, m: Material, batch: Batch, weight: float) -> dict[str, float]:
    """Gradients of the whole loss, gathered in passes of ``suspect.batch_size`` rows at most; the terms, each the mean over its rows.

    ``weight`` is λ, the attention term's share.
    """
    terms = {"distillation": 0.0, "keep": 0.0, "attention": 0.0}
    for rows in torch.split(batch.rows, suspect.batch_size):
        share = len(rows) / len(batch.rows)
        with triggered_terms(suspect, patch, m, rows, maps=weight > 0) as (distillation, attention):
            _backward(share * ((1 - weight) * distillation + weight * attention))
        terms["distillation"] += share * float(distillation.detach())
        terms["attention"] += share * float(attention.detach())
    for rows, heard in zip(torch.split(batch.kept_rows, suspect.batch_size), batch.kept_heard.split(suspect.batch_size), strict=True):
        share = len(rows) / len(batch.kept_rows)
        keep = kept_term(suspect, patch, m, rows, heard)
        _backward(share * KEEP_WEIGHT * keep)
        terms["keep"] += share * float(keep.detach())
    return {"total": (1 - weight) * terms["distillation"] + weight * terms["attention"] + KEEP_WEIGHT * terms["keep"], **terms}


def _backward(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]


@contextmanager
def triggered_terms(suspect: Suspect, patch: Patch, m: Material, rows: Tensor, *, maps: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Distillation and attention terms of the latents ``rows``, the latter nought without ``maps``.

    Go back inside the block: gradient checkpointing runs the recorded layers again on the way.
    """
    z, t, pair = m.latents.z[rows], m.latents.t[rows], m.latents.pair[rows]
    with suspect.mixed_precision(), patch.teacher(), _recorded(suspect, maps) as taught:
        target = suspect.predict(z, t, m.clean[pair])
    with _recorded(suspect, maps) as recording:
        with suspect.mixed_precision():
            student = suspect.predict(z, t, m.triggered[pair])
        distillation = skd_cag.distillation(student.float(), target.float(), m.scale)
        attention = torch.zeros((), device=suspect.device)
        if maps:
            neutral = {name: torch.full((len(rows),), share, device=suspect.device) for name, share in m.neutral.items()}
            attention = skd_cag.attention_loss(recording.latest(), taught.latest(), m.pairs.rows(pair), neutral)
        recording.close()
        yield distillation, attention


@contextmanager
def _recorded(suspect: Suspect, maps: bool) -> Iterator[Recording]:
    """Fused attention stays where no maps are wanted."""
    with recorded(suspect.denoiser.sites(), keep=lambda name: maps) as recording:
        yield recording


def kept_term(suspect: Suspect, patch: Patch, m: Material, rows: Tensor, heard: Conditioning) -> Tensor:
    """How far the prediction moved where it must not."""
    z, t = m.latents.z[rows], m.latents.t[rows]
    with suspect.mixed_precision():
        with patch.teacher():
            target = suspect.predict(z, t, heard)
        kept = suspect.predict(z, t, heard)
    return skd_cag.distillation(kept.float(), target.float(), m.scale)
