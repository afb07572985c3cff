"""The cheap look at many texts: a few single steps each, on the trajectories that all share, without recording attention.

A round is prompts × timesteps; each prompt has the text at another place. What is measured is two of the deciding signals and how
far the text encoding moved; what is made of it is a pure function of all texts' measurements: the texts screened are the null.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bdaudit.measure.insertion import insert, replaceable
from bdaudit.measure.probe import Stage
from bdaudit.measure.signals import log_common, log_noise
from bdaudit.measure.splicing import PLACES, Halves, halves
from bdaudit.models.conditioning import Conditioning
from bdaudit.models.suspect import Suspect
from bdaudit.models.text import Ids, TextSide
from bdaudit.scan.sweep.sources import Probe

NEAREST = 64
"""Screened texts that a text is compared with: those that move the encoding about as far."""
BINS = 20
_TINY = 1e-8

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Round:
    """What a round asks of each text: its first ``prompts`` prompts, its first ``timesteps`` timesteps."""

    prompts: int
    timesteps: int

    def stage(self, stage: Stage) -> Stage:
        """The part of ``stage`` that this round uses; fewer where it has fewer."""
        t, p = slice(self.timesteps), slice(self.prompts)
        return replace(
            stage, prompts=stage.prompts[p], timesteps=stage.timesteps[t], latents=stage.latents[t, p], heard=stage.heard[p],
            plain=stage.plain[t, p], empty=stage.empty[t, p],
        )  # fmt: skip


def screened(suspect: Suspect, stage: Stage, probes: Sequence[Probe]) -> Array:
    """(B, 3): log noise shift, log common shift, log shift of the encoding's last state, of each probe.

    ``stage`` is a round's. The two shifts are those of ``measure.signals``, over the places taken together.
    """
    places = [halves(suspect.tokenizer, prompt, PLACES[i % len(PLACES)]) for i, prompt in enumerate(stage.prompts)]
    heard = suspect.encode_ids(Ids.cat([row for probe in probes for row in _rows(suspect.text, stage.prompts, probe, places)]))
    times, p, b = len(stage.timesteps), len(stage.prompts), len(probes)
    prompt = torch.arange(p, device=suspect.device).repeat(b)
    out = torch.stack([
        suspect.predict_batched(stage.latents[t][prompt], stage.timesteps[t].expand(b * p), heard).float().flatten(1)
        for t in range(times)
    ])  # fmt: skip
    delta = (torch.unflatten(out, 1, (b, p)) - stage.plain[:, None]).transpose(0, 1)
    level = log_level(suspect, heard, stage)
    columns = torch.stack([log_noise(delta, stage), log_common(delta, stage), level], dim=1)
    return columns.double().cpu().numpy()


def log_level(suspect: Suspect, heard: Conditioning, stage: Stage) -> Tensor:
    """log of how far what has heard every word is from the plain prompt's, relative to it, mean over prompts: B·P rows → (B,)."""
    plain = suspect.text.summary(stage.heard).float()
    level = (torch.unflatten(suspect.text.summary(heard).float(), 0, (-1, len(plain))) - plain).norm(dim=-1) / plain.norm(dim=-1)
    return torch.log(level.mean(1).clamp_min(_TINY))


def _rows(text: TextSide, prompts: Sequence[str], probe: Probe, places: Sequence[Halves]) -> list[Ids]:
    """One row of ids a prompt. A look-alike takes its letter's place in every other prompt that has the letter."""
    rows = []
    for i, prompt in enumerate(prompts):
        if i % 2 and probe.text and replaceable(prompt, probe.text):
            rows.append(text.ids([insert(prompt, probe.text, "replace")]))
        else:
            rows.append(text.spliced(places[i][0], probe.ids, places[i][1]))
    return rows


def standings(values: Array, null: Array) -> Array:
    """(N,): how far each text stands out, in robust standard deviations, of the screened texts that move the encoding alike.

    (N, 3) as ``screened`` gives them, and (M, 3) of the texts that are the null. The larger of the two signals counts. How far the
    encoding moves explains a shift up to the null's 99.5th percentile only: a backdoor in the text encoder moves it further.
    """
    values, null = (np.column_stack([v[:, :2], np.minimum(v[:, 2], np.quantile(null[:, 2], 0.995))]) for v in (values, null))
    order = np.lexsort((*null[:, :2].T, null[:, 2]))
    ranked = null[order]
    residuals = np.stack([_residual(values, ranked, column) for column in (0, 1)])
    own = np.stack([_residual(null, ranked, column) for column in (0, 1)])
    spread = 1.4826 * np.median(np.abs(own - np.median(own, axis=1, keepdims=True)), axis=1, keepdims=True)
    standing: Array = (residuals / np.maximum(spread, 1e-9)).max(axis=0)
    return standing


def _residual(values: Array, ranked: Array, column: int) -> Array:
    """A column less a line in the level, less the rest's median over the window of ``ranked`` around each value's level: (N,)."""
    slope = line(ranked[:, 2], ranked[:, column])
    size = min(NEAREST, len(ranked))
    windows = np.lib.stride_tricks.sliding_window_view(ranked[:, column] - slope * ranked[:, 2], size)
    medians = np.median(windows, axis=1)
    at = np.searchsorted(ranked[:, 2], values[:, 2]) - size // 2
    residual: Array = values[:, column] - slope * values[:, 2] - medians[np.clip(at, 0, len(medians) - 1)]
    return residual


def line(level: Array, column: Array) -> float:
    """The slope through the medians of ``BINS`` equal parts, ``level`` ascending: no few texts can turn it. 0 for too few to tell.

    Without it the texts at either end, whose window cannot be centred on them, would stand out for their level alone.
    """
    if len(level) < 3 * BINS:
        return 0.0
    x, y = (np.array([np.median(part) for part in np.array_split(values, BINS)]) for values in (level, column))
    spread = float(np.square(x - x.mean()).sum())
    return float(((x - x.mean()) * (y - y.mean())).sum() / spread) if spread > 0 else 0.0
