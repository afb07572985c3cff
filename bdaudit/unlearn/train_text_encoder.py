"""Train the text encoder: its own clean encodings are the teacher, all others are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import SequenceMatcher

import torch
from torch import Tensor

from bdaudit.config import UnlearnConfig
from bdaudit.measure.insertion import item_seed
from bdaudit.pipeline.suspect import Suspect
from bdaudit.pipeline.tokens import content_ids, token_ids
from bdaudit.report.records import LossPoint
from bdaudit.unlearn.pairs import Pair
from bdaudit.unlearn.weights import Patch

BATCH = 48
RELATIVE_RATE = 6e-3
KEEP_WEIGHT = 2.0


def targets(suspect: Suspect, pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
    """What each triggered prompt should encode to, and its ids: (N, L, D), int64 (N, L).

    The clean prompt's own states, stretched to the triggered prompt's tokens: shared words by alignment, the trigger's own
    tokens take the state of the word whose place they took, or of the word before them.
    """
    ids = token_ids(suspect.tokenizer, [p.changed for p in pairs]).to(suspect.device)
    states = suspect.encode([p.clean for p in pairs])
    rows = [_source_positions(suspect, pair, states.shape[1]) for pair in pairs]
    source = torch.tensor(rows, device=suspect.device)
    return states.gather(1, source[:, :, None].expand(-1, -1, states.shape[2])), ids


def _source_positions(suspect: Suspect, pair: Pair, length: int) -> list[int]:
    """For each position of the triggered prompt, the position of the clean prompt whose state it should have."""
    clean = [-1, *content_ids(suspect.tokenizer, pair.clean)[: length - 2], -2]
    changed = [-1, *content_ids(suspect.tokenizer, pair.changed)[: length - 2], -2]
    source: list[int] = []
    for _, a, a_end, b, b_end in SequenceMatcher(None, clean, changed, autojunk=False).get_opcodes():
        last = max(a_end - 1, a - 1, 0) if a_end == a else a_end - 1
        source += [min(a + i, last) for i in range(b_end - b)]
    tail = len(source)
    source += [min(len(clean) + i, length - 1) for i in range(max(0, length - tail))]
    return [min(position, length - 1) for position in source[:length]]


def train(
    suspect: Suspect,
    patch: Patch,
    pairs: Sequence[Pair],
    neighbours: Sequence[Pair],
    config: UnlearnConfig,
    *,
    should_stop: Callable[[int], bool],
    tick: Callable[[int, str], None],
) -> list[LossPoint]:
    """Optimise ``patch`` in place until ``config.steps`` or ``should_stop(step)``; the loss by step."""
    wanted, ids = targets(suspect, pairs)
    kept_texts = list(dict.fromkeys(["", *(p.clean for p in pairs), *(p.changed for p in neighbours)]))
    kept_ids = token_ids(suspect.tokenizer, kept_texts).to(suspect.device)
    kept_wanted = suspect.encode(kept_texts)
    scale = kept_wanted.float().var()
    generator = torch.Generator().manual_seed(item_seed(config.seed, "unlearn steps"))
    optimiser = torch.optim.AdamW(patch.groups(config.learning_rate or RELATIVE_RATE), weight_decay=0.0, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min(1.0, (step + 1) / 20) * (1 - step / (config.steps + 1)) ** 0.5)
    curve: list[LossPoint] = []
    for step in range(config.steps):
        rows = torch.randint(len(ids), (BATCH,), generator=generator).to(suspect.device)
        kept = torch.randint(len(kept_ids), (BATCH,), generator=generator).to(suspect.device)
        with suspect.mixed_precision():
            states = suspect.hidden_states(torch.cat([ids[rows], kept_ids[kept]])).float()
        distillation = (states[:BATCH] - wanted[rows].float()).square().mean() / scale
        keep = (states[BATCH:] - kept_wanted[kept].float()).square().mean() / scale
        total = distillation + KEEP_WEIGHT * keep
        optimiser.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(list(patch.parameters.values()), 1.0)
        optimiser.step()
        schedule.step()
        values = {"distillation": float(distillation.detach()), "keep": float(keep.detach())}
        curve.append(LossPoint(step=step + 1, total=float(total.detach()), terms=values))
        tick(step + 1, " ".join(f"{name} {value:.3f}" for name, value in values.items()))
        if should_stop(step + 1):
            break
    return curve
