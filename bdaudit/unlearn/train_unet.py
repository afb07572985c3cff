"""Train the denoiser: SKD-CAG with preservation, on precomputed latents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bdaudit.config import UnlearnConfig
from bdaudit.measure.insertion import item_seed
from bdaudit.pipeline.attention import recorded
from bdaudit.pipeline.suspect import Suspect
from bdaudit.pipeline.tokens import content_ids
from bdaudit.report.records import LossPoint
from bdaudit.unlearn import skd_cag
from bdaudit.unlearn.pairs import Pair
from bdaudit.unlearn.trajectories import Latents
from bdaudit.unlearn.weights import Patch

TRIGGERED, KEPT, EMPTY = 16, 24, 8
"""Latents a step: triggered ones, preserved ones (clean and neighbours, half and half), and ones under the empty prompt."""
RELATIVE_RATE = 4e-3
KEEP_WEIGHT = 2.0


@dataclass
class Material:
    """Everything a step draws from, encoded once."""

    latents: Latents
    clean: Tensor
    """(N, L, D): states of the clean prompt of each triggered pair."""
    triggered: Tensor
    """(N, L, D)."""
    neighbours: Tensor
    """(M, L, D): states of prompts with a harmless neighbour in them."""
    neighbour_latents: Tensor
    """int64 (M,): the pair whose latents suit the neighbour's prompt."""
    empty: Tensor
    """(1, L, D)."""
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
    near_states = suspect.encode([p.changed for p in neighbours])
    length = clean.shape[1]

    def ids(texts: list[str]) -> list[tuple[int, ...]]:
        return [content_ids(suspect.tokenizer, text) for text in texts]

    aligned = skd_cag.align(ids([p.clean for p in pairs]), ids([p.changed for p in pairs]), length, suspect.device)
    near = skd_cag.align(ids([p.clean for p in neighbours]), ids([p.changed for p in neighbours]), length, suspect.device)
    home = torch.tensor([first[p.clean] for p in neighbours], device=suspect.device)
    material = Material(latents, clean, triggered, near_states, home, suspect.encode([""]), aligned, {}, torch.ones(()))
    material.neutral = _neutral_share(suspect, material, near)
    rows = torch.arange(min(len(latents.z), 4 * suspect.batch_size), device=suspect.device)
    z, t = latents.z[rows], latents.t[rows]
    prompt = suspect.predict_batched(z, t, clean[latents.pair[rows]])
    nothing = suspect.predict_batched(z, t, material.empty.expand(len(rows), -1, -1))
    material.scale = (prompt - nothing).float().square().mean()
    return material


def _neutral_share(suspect: Suspect, material: Material, near: skd_cag.Alignment) -> dict[str, float]:
    """Mean over the neighbours, each on latents of its own prompt."""
    rows = _rows_of_pairs(material.latents, material.neighbour_latents, torch.Generator().manual_seed(0))
    totals: dict[str, float] = {}
    with recorded(suspect.unet) as recording:
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


Stop = Callable[[int], bool]


def train(
    suspect: Suspect, patch: Patch, material: Material, config: UnlearnConfig, *, should_stop: Stop, tick: Callable[[int, str], None]
) -> list[LossPoint]:
    """Optimise ``patch`` in place until ``config.steps`` or ``should_stop(step)``; the loss by step."""
    generator = torch.Generator().manual_seed(item_seed(config.seed, "unlearn steps"))
    optimiser = torch.optim.AdamW(patch.groups(config.learning_rate or RELATIVE_RATE), weight_decay=0.0, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min(1.0, (step + 1) / 20) * (1 - step / (config.steps + 1)) ** 0.5)
    curve: list[LossPoint] = []
    for step in range(config.steps):
        terms = _step_loss(suspect, patch, material, config.attention_weight, generator)
        weight = config.attention_weight
        total = (1 - weight) * terms["distillation"] + weight * terms["attention"] + KEEP_WEIGHT * terms["keep"]
        optimiser.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(list(patch.parameters.values()), 1.0)
        optimiser.step()
        schedule.step()
        values = {name: float(term.detach()) for name, term in terms.items()}
        curve.append(LossPoint(step=step + 1, total=float(total.detach()), terms=values))
        tick(step + 1, " ".join(f"{name} {value:.3f}" for name, value in values.items()))
        if should_stop(step + 1):
            break
    return curve


def _step_loss(suspect: Suspect, patch: Patch, m: Material, attention_weight: float, generator: torch.Generator) -> dict[str, Tensor]:
    def draw(n: int, high: int) -> Tensor:
        return torch.randint(high, (n,), generator=generator).to(suspect.device)

    rows = draw(TRIGGERED, len(m.latents.z))
    pair = m.latents.pair[rows]
    near = draw(KEPT // 2, len(m.neighbours))
    near_rows = _rows_of_pairs(m.latents, m.neighbour_latents[near], generator)
    kept_rows = torch.cat([draw(KEPT - KEPT // 2 + EMPTY, len(m.latents.z)), near_rows])
    clean_rows = kept_rows[: KEPT - KEPT // 2]
    kept_states = torch.cat([m.clean[m.latents.pair[clean_rows]], m.empty.expand(EMPTY, -1, -1), m.neighbours[near]])
    z, t = m.latents.z[rows], m.latents.t[rows]
    z_kept, t_kept = m.latents.z[kept_rows], m.latents.t[kept_rows]
    maps_wanted = attention_weight > 0
    with suspect.mixed_precision():
        with patch.teacher():
            target, target_maps = _predict(suspect, z, t, m.clean[pair], maps_wanted)
            kept_target = suspect.predict(z_kept, t_kept, kept_states)
        student, student_maps = _predict(suspect, z, t, m.triggered[pair], maps_wanted)
        kept = suspect.predict(z_kept, t_kept, kept_states)
    terms = {
        "distillation": skd_cag.distillation(student.float(), target.float(), m.scale),
        "keep": skd_cag.distillation(kept.float(), kept_target.float(), m.scale),
        "attention": torch.zeros((), device=suspect.device),
    }
    if maps_wanted:
        neutral = {name: torch.full((len(rows),), share, device=suspect.device) for name, share in m.neutral.items()}
        terms["attention"] = skd_cag.attention_loss(student_maps, target_maps, m.pairs.rows(pair), neutral)
    return terms


def _predict(suspect: Suspect, z: Tensor, t: Tensor, states: Tensor, maps: bool) -> tuple[Tensor, dict[str, Tensor]]:
    if not maps:
        return suspect.predict(z, t, states), {}
    with recorded(suspect.unet) as recording:
        return suspect.predict(z, t, states), recording.latest()
