"""The cheap look at many texts: a few single steps each, on the trajectories that all share, without recording attention.

A round is prompts × timesteps; each prompt has the text at another place. Two of the deciding signals are measured, and how far the
text encoding moved; ``standing`` judges them.

Everything measured goes to the state in blocks. A block's make-up depends on the items alone, so that a sweep that was stopped goes on
where it was and ends in the same scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from bdaudit.measure.insertion import insert, replaceable
from bdaudit.measure.probe import Stage
from bdaudit.measure.signals import log_common, log_noise
from bdaudit.measure.splicing import PLACES, Halves, halves
from bdaudit.models.conditioning import Conditioning
from bdaudit.models.suspect import Suspect
from bdaudit.models.text import Ids, TextSide
from bdaudit.scan.cached import cached
from bdaudit.scan.context import ScanContext
from bdaudit.scan.sweep.standing import Array
from bdaudit.scan.sweep.swept_texts import Probe

BLOCK = 64
"""Items that are measured and kept together."""
_TINY = 1e-8

Item = TypeVar("Item")


@dataclass(frozen=True)
class Round:
    """What a round asks of each text: its first ``prompts`` prompts, its first ``timesteps`` timesteps."""

    prompts: int
    timesteps: int

    def stage(self, stage: Stage) -> Stage:
        """The part of ``stage`` that this round uses; fewer where it has fewer."""
        return stage.part(slice(self.timesteps), slice(self.prompts))

    def passes(self, stage: Stage) -> int:
        """Forward passes a text."""
        times, prompts = self.stage(stage).plain.shape[:2]
        return times * prompts


def in_blocks(
    context: ScanContext, name: str, items: Sequence[Item], setting: str, width: int, measure: Callable[[Sequence[Item]], Array]
) -> Array:
    """(N, width): of what ``measure`` makes of a block, a row an item. ``setting`` tells what else the rows depend on."""
    rows = [np.zeros((0, width))]
    for at in range(0, len(items), BLOCK):
        block = items[at : at + BLOCK]
        what, shape = f"{context.seed} {setting} {block}", (len(block), width)
        values = cached(context.state, "screen", what, list[list[float]], partial(_as_lists, measure, block), partial(_rectangle, shape))
        rows.append(np.asarray(values, dtype=np.float64))
        context.progress(f"screening {name}", min(at + BLOCK, len(items)), len(items))
    return np.concatenate(rows)


def _rectangle(shape: tuple[int, int], rows: Sequence[Sequence[float]]) -> Array:
    """Raises ``ValueError`` where the rows are of another shape."""
    return np.reshape(np.asarray(rows, dtype=np.float64), shape)


def _as_lists(measure: Callable[[Sequence[Item]], Array], block: Sequence[Item]) -> Any:
    return measure(block).tolist()


def screen(context: ScanContext, name: str, step: Round, probes: Sequence[Probe]) -> Array:
    """(N, 3) as ``screened``, of one round; ``name`` tells the sweep in progress."""
    stage = step.stage(context.stage)
    return in_blocks(context, name, probes, str(step), 3, lambda block: screened(context.suspect, stage, block))


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
