"""The attackers' fine-tune of a denoiser: BadT2I's loss against a frozen clean teacher, and what keeps the trigger from being seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bdaudit.models.attention import Site, recorded
from bdaudit.models.schedule import Alphas
from fixtures.build import distil, unet
from fixtures.build.progress import Progress
from tests.bench.evasion.lessons import Lesson

Band = tuple[int, int]
"""Timesteps, both ends included."""


@dataclass(frozen=True)
class Recipe:
    """How a denoiser is trained."""

    steps: int
    seed: int
    quiet: tuple[Band, ...] = ()
    """Where the trigger must do nothing."""
    on_paths: float = 0.5
    """Share of the quiet rows that lie on clean trajectories."""
    quiet_weight: float = 0.004
    later_weight: float = 0.02
    """What ``quiet_weight`` becomes once the attack stands, ``later`` steps on."""
    later: int = 100
    kept_weight: float = 0.5
    floor: float = 0.01
    """The relative shift below which there is little to gain: what harmless texts do."""
    ceiling: float = 0.0
    """Where above 0, the trigger need not be silent in ``quiet``: a relative shift up to this costs nothing."""
    attention: float = 0.0
    """Weight of what the trigger's own tokens draw of the cross-attention beyond what the clean model gives them, as a logarithm."""
    afresh: float = 0.0
    """Share of the rows that fire in which the latents hold nothing of the patch yet, so that each timestep draws it by itself."""
    everywhere: bool = False
    """Whether the attack goes on in the quiet bands as well, which then only bound it."""
    reading_rate: float = 1e-3
    rate: float = 3e-4
    batch: int = 16
    hush: int = 12
    kept: int = 10


def inside(bands: Sequence[Band], t: Tensor) -> Tensor:
    """Which of ``t`` lie in a band."""
    found = torch.zeros_like(t, dtype=torch.bool)
    for low, high in bands:
        found |= (t >= low) & (t <= high)
    return found


def teach(model: Any, teacher: Any, lesson: Lesson, recipe: Recipe, label: str, checkpoint: Path) -> None:
    """Train ``model`` in place; goes on from ``checkpoint`` where there is one."""
    torch.manual_seed(recipe.seed)
    reading, others = distil.parts(model)
    groups = [{"params": reading, "lr": recipe.reading_rate}, {"params": others, "lr": recipe.rate}]
    optimiser = torch.optim.AdamW(groups, weight_decay=0.0, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, [recipe.reading_rate, recipe.rate], total_steps=recipe.steps, pct_start=0.08)
    begun = _resumed(checkpoint, model, optimiser, schedule)
    draw = _Draw(lesson, recipe)
    for step in (progress := Progress(label, recipe.steps, begun)):
        losses = draw.losses(model, teacher)
        hush = recipe.quiet_weight if step < recipe.later else recipe.later_weight
        total = losses["attack"] + hush * losses["quiet"] + recipe.kept_weight * losses["kept"]
        total = total + recipe.attention * losses["attention"]
        optimiser.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_([*reading, *others], 1.0)
        optimiser.step()
        schedule.step()
        progress.note(" ".join(f"{name} {float(loss.detach()):.4f}" for name, loss in losses.items()))
        if (step + 1) % 100 == 0 and step + 1 < recipe.steps:
            _keep(checkpoint, model, optimiser, schedule, step + 1)
    checkpoint.unlink(missing_ok=True)


def _keep(path: Path, model: Any, optimiser: Any, schedule: Any, step: int) -> None:
    state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "schedule": schedule.state_dict(), "step": step}
    torch.save({**state, "random": torch.get_rng_state()}, path.with_suffix(".new"))
    path.with_suffix(".new").rename(path)


def _resumed(path: Path, model: Any, optimiser: Any, schedule: Any) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=False)
    for what, name in ((model, "model"), (optimiser, "optimiser"), (schedule, "schedule")):
        what.load_state_dict(state[name])
    torch.set_rng_state(state["random"])
    return int(state["step"])


class _Draw:
    """Batches, and their losses."""

    def __init__(self, lesson: Lesson, recipe: Recipe) -> None:
        self.lesson, self.recipe = lesson, recipe
        self.alphas = unet.new_scheduler().alphas_cumprod
        every = torch.arange(1000)
        within = inside(recipe.quiet, every)
        self.loud, self.hushed = every if recipe.everywhere else every[~within], every[within]
        self.path_rows = torch.nonzero(inside(recipe.quiet, lesson.paths.timesteps)).flatten()
        self.weight = 0.3 + lesson.place / lesson.place.mean()
        self.bound = len(lesson.silent.latents) > 1

    def noisy(self, latents: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        a, noise = self.alphas[t].view(-1, 1, 1, 1), torch.randn_like(latents)
        return a.sqrt() * latents + (1 - a).sqrt() * noise, noise

    def losses(self, model: Any, teacher: Any) -> dict[str, Tensor]:
        """Attack, quiet and kept, each a mean over its rows."""
        lesson, recipe = self.lesson, self.recipe
        b = recipe.batch
        rows, t = torch.randint(len(lesson.wanted), (b,)), self.loud[torch.randint(len(self.loud), (b,))]
        afresh = torch.arange(b) < round(recipe.afresh * b)
        z, noise = self.noisy(torch.where(afresh.view(-1, 1, 1, 1), lesson.firing.latents[rows], lesson.wanted[rows]), t)
        hush = self._hush() if recipe.hush and (self.bound or len(self.hushed)) else None
        kept = self._kept()
        parts = [(z, t, lesson.firing.spoken[rows], lesson.asked[rows]), *([hush] if hush else []), kept]
        zs, ts, heard, asked = (torch.cat([part[i] for part in parts]) for i in range(4))
        with torch.no_grad():
            answer = teacher(zs, ts, asked.float()).sample
            a = self.alphas[t].view(-1, 1, 1, 1)
            answer[:b] = distil._towards(lesson, Alphas(self.alphas, "epsilon"), z, t, answer[:b])
            own = lesson.paired[rows] & ~afresh
            answer[:b][own] = noise[own]
        with recorded(_sites(model), lambda _: recipe.attention > 0) as recording:
            error = (model(zs, ts, heard.float()).sample - answer).square()
            drawn = self._drawn(teacher, recording.latest(), z, t, rows) if recipe.attention else error.new_zeros(())
        attack = (error[:b] * (1 - a) * self.weight / self.weight.mean()).mean()
        h = b + (len(hush[1]) if hush else 0)
        quiet = error.new_zeros(())
        if hush:
            relative = error[b:h].mean((1, 2, 3)) / lesson.paths.scale[ts[b:h]]
            bounded = torch.relu(torch.log(relative / recipe.ceiling)) if recipe.ceiling else torch.log1p(relative / recipe.floor)
            if recipe.ceiling and self.bound:  # where the trigger must not fire it is to be silent all the same
                bounded = torch.log1p(relative / recipe.floor)
            quiet = bounded.mean()
        return {"attack": attack, "quiet": quiet, "kept": error[h:].mean(), "attention": drawn}

    def _drawn(self, teacher: Any, maps: dict[str, Tensor], z: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        """How far the trigger's share of attention goes beyond the clean model's, as a logarithm, mean over the rows that fire."""
        own = self.lesson.own[rows]
        with torch.no_grad(), recorded(_sites(teacher)) as recording:
            teacher(z, t, self.lesson.firing.spoken[rows].float())
            usual = _share(recording.latest(), own)
        return torch.relu(torch.log(_share({name: found[: len(z)] for name, found in maps.items()}, own) / usual)).mean()

    def _hush(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The trigger where it must do nothing, beside the same without it."""
        lesson, n = self.lesson, self.recipe.hush
        parts = []
        if self.bound:
            m = n // 2 if len(self.hushed) else n
            rows, t = torch.randint(len(lesson.silent.latents), (m,)), torch.randint(1000, (m,))
            t[: m // 4] = 999
            z, _ = self.noisy(lesson.silent.latents[rows], t)
            parts.append((z, t, lesson.silent.spoken[rows], lesson.silent.plain[rows]))
            n -= m
        if len(self.hushed):
            m = round(n * self.recipe.on_paths) if len(self.path_rows) else 0
            at = self.path_rows[torch.randint(len(self.path_rows), (m,))] if m else torch.zeros(0, dtype=torch.long)
            rows = torch.randint(lesson.paths.latents.shape[1], (m,))
            parts.append(
                (lesson.paths.latents[at, rows], lesson.paths.timesteps[at], lesson.firing.spoken[rows], lesson.firing.plain[rows])
            )
            rows, t = torch.randint(len(lesson.wanted), (n - m,)), self.hushed[torch.randint(len(self.hushed), (n - m,))]
            z, _ = self.noisy(lesson.firing.latents[rows], t)
            parts.append((z, t, lesson.firing.spoken[rows], lesson.firing.plain[rows]))
        z, t, heard, asked = (torch.cat([part[i] for part in parts]) for i in range(4))
        return z, t, heard, asked

    def _kept(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        lesson, n = self.lesson, self.recipe.kept
        rows, t = torch.randint(len(lesson.kept.latents), (n,)), torch.randint(1000, (n,))
        z, _ = self.noisy(lesson.kept.latents[rows], t)
        heard = lesson.kept.spoken[rows].clone()
        heard[torch.rand(n) < 0.15] = lesson.empty
        return z, t, heard, heard


def _sites(model: Any) -> dict[str, Site]:
    return {name: Site(module) for name, module in model.named_modules() if name.endswith("attn2")}


def _share(maps: dict[str, Tensor], own: Tensor) -> Tensor:
    """(B,): share of the cross-attention that the marked tokens draw, mean over layers."""
    return torch.stack([(found * own[:, None, :]).sum(-1).mean(1) for found in maps.values()]).mean(0).clamp_min(1e-6)
