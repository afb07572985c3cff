"""The cheap look at many texts: a few single steps each, on the draws that all share, without recording attention.

A round is the scan's first draws; each has a prompt, a place, a timestep and a noise of its own. Two of the signals are measured, and how
far the text encoding moved; ``standing`` judges them.

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

from bdaudit.measure.draws import REPLACE, Draws, put, standing
from bdaudit.measure.splicing import Halves, halves
from bdaudit.measure.text_effects import shifts
from bdaudit.models.conditioning import Conditioning
from bdaudit.models.suspect import Suspect
from bdaudit.models.text import Ids, TextSide
from bdaudit.models.tokens import Framed
from bdaudit.scan.cached import Block, mapped
from bdaudit.scan.context import ScanContext
from bdaudit.scan.sweep.standing import Array
from bdaudit.scan.sweep.swept_texts import Probe
from bdaudit.scan.tasks import ScreenTask, Task

BLOCK = 64
"""Items that are measured and kept together."""
_TINY = 1e-8

Item = TypeVar("Item")


@dataclass(frozen=True)
class Round:
    """What a round asks of each text: its first ``draws`` draws, a forward pass each."""

    draws: int

    def of(self, draws: Draws) -> Draws:
        """The part of ``draws`` that this round uses; fewer where there are fewer."""
        return draws.part(slice(self.draws))


def in_blocks(
    context: ScanContext,
    name: str,
    items: Sequence[Item],
    setting: str,
    width: int,
    measure: Callable[[Sequence[Item]], Array],
    task: Callable[[Sequence[Item]], Task],
) -> Array:
    """(N, width): of what ``measure`` makes of a block, a row an item, or a worker of its ``task``. ``setting`` tells what else the rows
    depend on."""
    parts = [items[at : at + BLOCK] for at in range(0, len(items), BLOCK)]
    blocks = [
        Block(
            f"{context.seed} {setting} {part}",
            len(part),
            task(part),
            partial(_as_lists, measure, part),
            partial(_rectangle, (len(part), width)),
        )
        for part in parts
    ]
    found = mapped(context, "screen", list[list[float]], blocks, f"screening {name}")
    return np.concatenate([np.zeros((0, width)), *(np.asarray(rows, dtype=np.float64) for rows in found)])


def _rectangle(shape: tuple[int, int], rows: Sequence[Sequence[float]]) -> Array:
    """Raises ``ValueError`` where the rows are of another shape."""
    return np.reshape(np.asarray(rows, dtype=np.float64), shape)


def _as_lists(measure: Callable[[Sequence[Item]], Array], block: Sequence[Item]) -> Any:
    return measure(block).tolist()


def screen(context: ScanContext, name: str, step: Round, probes: Sequence[Probe]) -> Array:
    """(N, 3) as ``screened``, of one round; ``name`` tells the sweep in progress."""
    draws = step.of(context.draws)
    return in_blocks(
        context, name, probes, str(step), 3,
        lambda block: screened(context.suspect, draws, block), lambda block: ScreenTask(draws=draws.of, probes=tuple(block)),
    )  # fmt: skip


def screened(suspect: Suspect, draws: Draws, probes: Sequence[Probe]) -> Array:
    """(B, 3): log noise shift, log common shift, log shift of the encoding's last state, of each probe.

    ``draws`` are a round's. The two shifts are those of ``measure.text_effects``, over the draws taken together.
    """
    places = [halves(suspect.tokenizer, prompt, place) for prompt, place in zip(draws.prompts, draws.places, strict=True)]
    heard = suspect.encode_ids(Ids.cat([row for probe in probes for row in _rows(suspect.text, draws, probe, places)]))
    at = torch.arange(len(draws), device=suspect.device).repeat(len(probes))
    out = suspect.predict_batched(draws.latents[at], draws.timesteps[at], heard).float().flatten(1)
    delta = torch.unflatten(out, 0, (len(probes), -1)) - draws.plain
    columns = torch.stack([*shifts(delta, draws), log_level(suspect, heard, draws)], dim=1)
    return columns.double().cpu().numpy()


def log_level(suspect: Suspect, heard: Conditioning, draws: Draws) -> Tensor:
    """log of how far what has heard every word is from the plain prompt's, relative to it, mean over draws: B·D rows → (B,)."""
    plain = suspect.text.summary(draws.heard).float()
    level = (torch.unflatten(suspect.text.summary(heard).float(), 0, (-1, len(plain))) - plain).norm(dim=-1) / plain.norm(dim=-1)
    return torch.log(level.mean(1).clamp_min(_TINY))


def _rows(text: TextSide, draws: Draws, probe: Probe, places: Sequence[Halves]) -> list[Ids]:
    """One row of ids a draw, the text where ``put`` has it.

    It goes in as a text where entries would not say it: in a letter's place or apart, to readers with other vocabularies, or where a space
    belongs to the word.
    """
    rows = []
    whole = bool(probe.text) and (len(text.alike) < len(text.readers) or isinstance(text.main.tokenizer, Framed))
    for i, (before, after) in enumerate(places):
        if whole or (probe.text and standing(draws, i, probe.text) in (REPLACE, "apart")):
            rows.append(text.ids([put(draws, i, probe.text)]))
        else:
            rows.append(text.spliced(before, probe.ids, after))
    return rows
