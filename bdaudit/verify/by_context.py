"""The success of a trigger by context: in which prompts that share a word it works clearly more often than in the others. Draws nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bdaudit import stats
from bdaudit.measure import estimates
from bdaudit.measure.draws import contexts, words_in
from bdaudit.measure.prompts import holds
from bdaudit.records import Estimate

FEWEST = 4
"""Pictures that a context is looked at on."""
ALPHA = 0.01
"""Chance that a trigger which works alike everywhere is called bound to any context."""


def by_context(hits: Tensor, floor: Tensor, prompts: Sequence[str], named: Sequence[str] = ()) -> dict[str, Estimate]:
    """Word → the rate on the pictures whose prompts have it, the highest first: of the contexts ``named``, and of each word with which
    the trigger works more often than without it, and than the picture does without a trigger (Fisher, Bonferroni): bool (N,) twice."""
    rows = {word: torch.tensor([word in words_in(prompt) for prompt in prompts]) for word in contexts(prompts)}
    rows = {word: row for word, row in rows.items() if int(row.sum()) >= FEWEST}
    bound = {word: row for word, row in rows.items() if _more(hits, floor, row) <= ALPHA / len(rows)}
    chosen = bound | {words: torch.tensor([holds(prompt, words) for prompt in prompts]) for words in named}
    found = {word: estimates.rate(hits[row]) for word, row in chosen.items() if row.any()}
    return dict(sorted(found.items(), key=lambda item: -item[1].low))


def _more(hits: Tensor, floor: Tensor, row: Tensor) -> float:
    """The larger p of two: that it works no more than in the other prompts, and no more than without the trigger in these."""
    inside, n = int(hits[row].sum()), int(row.sum())
    elsewhere = stats.fisher_greater(inside, n, int(hits[~row].sum()), int((~row).sum()))
    return max(elsewhere, stats.fisher_greater(inside, n, int(floor[row].sum()), n))
