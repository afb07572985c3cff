"""A soft choice: for each of M slots in a prompt, weights over the whole vocabulary; their mean embedding stands there.

It stays inside the hull of real embeddings, so that no direction is taken that no text has, and its heaviest entries are what it is made
of: moved to where an objective is largest, it names texts. The weights move by exponentiated gradient (Kivinen and Warmuth 1997), the
gains being the gradients at the one-hot choices, as in HotFlip (1712.06751) and GCG (2307.15043). R choices move together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bdaudit.measure.soft_token import Objective, Slots, embeddings, heard_with
from bdaudit.models.suspect import Suspect
from bdaudit.models.tokens import frame
from bdaudit.progress import Progress, silent

STEPS = 30
RATE = 1.0
"""A step adds the gains, divided by their spread over the vocabulary, to the logarithms of the weights, so many times."""
SPREAD = 2.0
"""Standard deviation of the logarithms at the start."""


@dataclass(frozen=True)
class Choices:
    """The choices at their best."""

    logs: Tensor
    """(R, M, V): logarithms of the weights, float32 on the CPU; −inf for start and end."""
    values: Tensor
    """(R,): the objective there, on the CPU."""


def drawn(suspect: Suspect, n: int, slots: int, seed: int) -> Tensor:
    """Logarithms of random weights, drawn on the CPU whatever the device: (n, slots, V)."""
    entries = len(embeddings(suspect))
    logs = SPREAD * torch.randn(n, slots, entries, generator=torch.Generator().manual_seed(seed))
    known = torch.zeros(entries, dtype=torch.bool)
    known[[i for i in suspect.tokenizer.get_vocab().values() if i not in frame(suspect.tokenizer)]] = True
    return logs.masked_fill(~known, -torch.inf).log_softmax(-1)


def moved(
    suspect: Suspect, places: Slots, objective: Objective, logs: Tensor, *, steps: int = STEPS, progress: Progress = silent
) -> Choices:
    """Move every choice from ``logs`` (R, M, V) to where its objective is largest; the best on the way counts, the start among them.

    As many choices as a batch has room for are moved at a time; where a GPU cannot hold their gradients, half as many from then on.
    """
    parts: list[Choices] = []
    done = 0
    while done < len(logs):
        part = logs[done : done + max(1, suspect.batch_size // len(places.ids))]

        def told(step: int, before: int = done, size: int = len(part)) -> None:
            progress("moving soft choices", before * steps + size * step, len(logs) * steps)

        try:
            parts.append(_moved(suspect, places, objective, part.to(suspect.device), steps, told))
        except torch.cuda.OutOfMemoryError:
            if suspect.batch_size <= len(places.ids):
                raise
            torch.cuda.empty_cache()
            suspect.batch_size //= 2
            continue
        done += len(part)
    return Choices(torch.cat([part.logs for part in parts]), torch.cat([part.values for part in parts]))


def _moved(suspect: Suspect, places: Slots, objective: Objective, logs: Tensor, steps: int, told: Callable[[int], None]) -> Choices:
    now = best = logs
    values = torch.full((len(logs),), -torch.inf, device=logs.device)
    for step in range(steps + 1):
        value, gains = _gains(suspect, places, objective, now)
        better = value > values
        best, values = torch.where(better[:, None, None], now, best), torch.where(better, value, values)
        now = (now + RATE * gains).log_softmax(-1)
        told(step)
    return Choices(best.cpu(), values.cpu())


def _gains(suspect: Suspect, places: Slots, objective: Objective, logs: Tensor) -> tuple[Tensor, Tensor]:
    """The objective (R,), and what each entry in each slot would add by first order, centred, over its spread: (R, M, V)."""
    table = embeddings(suspect).detach().float()
    rows = (logs.exp() @ table).requires_grad_(True)
    value = objective(heard_with(suspect, places, rows))
    (gradient,) = torch.autograd.grad(value.sum(), [rows])
    gains = gradient @ table.T
    centred = gains - gains.mean(-1, keepdim=True)
    return value.detach(), centred / centred.std(-1, keepdim=True).clamp_min(1e-12)
