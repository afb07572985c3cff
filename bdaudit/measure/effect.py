"""How much a text moves one denoising step, against harmless texts of its kind: no pictures needed.

A text is judged in the group of draws where it does most: those at one place of the prompt, on one quarter of the path, or in a context
that is known. So a trigger that is bound to any of these is not averaged away.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from bdaudit.measure.controls import harmless_texts
from bdaudit.measure.draws import REPLACE, Draws, groups_of
from bdaudit.measure.prompts import holds
from bdaudit.measure.text_effects import TOGETHER, TextEffect, text_effects
from bdaudit.models.suspect import Suspect


@dataclass(frozen=True)
class Reading:
    """One number of a text, beside the same number of harmless texts of its kind."""

    value: float
    null: tuple[float, ...]

    @property
    def limit(self) -> float:
        """The null's 95th percentile: at or below it, the text does no more than harmless ones do."""
        return float(np.quantile(self.null, 0.95))


@dataclass(frozen=True)
class Effect:
    """What a text does to one denoising step, in units of what the prompt itself changes."""

    text: str
    null_texts: tuple[str, ...]
    """The harmless texts, in the nulls' order."""
    shift: Reading
    """Mean square of the change of the prediction over the mean square of what the whole prompt changes, where it does most."""
    common: Reading
    """The same of the mean change over prompts: what moves all pictures alike (a patch, a style, one image)."""
    states: Reading
    """Relative change of the hidden states that are not the text's own."""
    usual: tuple[float, ...] = ()
    """(D,): the median log shift of the harmless texts in each draw, kept so that the text can be judged by it later."""
    beside: str = field(default="harmless texts", kw_only=True)
    """Whose figures the nulls are, in words."""

    def within(self, share: float = 1.0) -> bool:
        """Whether the text moves the prediction no more than ``share`` of what harmless ones do, where it does most and in common."""
        return self.beyond <= share

    @property
    def beyond(self) -> float:
        """How many times the limit it moves the prediction, one by one or in common."""
        return max(reading.value / reading.limit for reading in (self.shift, self.common))

    def quiet(self) -> tuple[str, ...]:
        """The harmless texts that do not take after the trigger: within the limit, or nearer to their median than to the trigger."""
        usual = float(np.median(self.shift.null))
        loud = max(self.shift.limit, (usual * self.shift.value) ** 0.5)
        return tuple(text for text, value in zip(self.null_texts, self.shift.null, strict=True) if value <= loud)


@dataclass(frozen=True)
class Ground:
    """What all texts are measured on."""

    draws: Draws
    named: tuple[str, ...] = ()
    """Contexts that are known: any words in a row."""

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """The draws at each place, on each quarter of the path, and in each context that is known."""
        found = [rows for context, rows in groups_of(self.draws).items() if not context.word and context.draw < 0]
        replaced = tuple(i for i, place in enumerate(self.draws.places) if place == REPLACE)
        return tuple(rows for rows in (*found, replaced, *map(self._holding, self.named)) if rows)

    def _holding(self, words: str) -> tuple[int, ...]:
        return tuple(i for i, prompt in enumerate(self.draws.prompts) if holds(prompt, words))


def measure(suspect: Suspect, ground: Ground, texts: Sequence[str], *, n_null: int, seed: int) -> list[Effect]:
    """The effect of each text, and of ``n_null`` harmless texts of its kind, none of ``texts``; one that stands beside several is
    measured once."""
    near = {text: harmless_texts(suspect.tokenizer, text, n_null, seed, texts) for text in texts}
    found = _changes(suspect, ground.draws, [*texts, *(other for others in near.values() for other in others)])
    return [_beside(ground, text, others, found) for text, others in near.items()]


def again(suspect: Suspect, ground: Ground, before: Sequence[Effect]) -> list[Effect]:
    """The same texts' effects now, beside what harmless texts did before, but for those that took after a text that did more than they.

    So a repair that makes harmless texts do more gains nothing by it, and drift counts: the change is from the draws' own predictions.
    """
    found = _changes(suspect, ground.draws, [effect.text for effect in before])
    return [_against(ground, found[effect.text], effect) for effect in before]


def _changes(suspect: Suspect, draws: Draws, texts: Iterable[str]) -> dict[str, TextEffect]:
    """Text → what it changed."""
    unique = list(dict.fromkeys(texts))
    blocks = (unique[at : at + TOGETHER] for at in range(0, len(unique), TOGETHER))
    return {text: one for block in blocks for text, one in zip(block, text_effects(suspect, draws, block, attention=False), strict=True)}


def _beside(ground: Ground, text: str, others: tuple[str, ...], found: dict[str, TextEffect]) -> Effect:
    usual = tuple(np.median([found[other].shift for other in others], axis=0).tolist())
    own, *nulls = (_values(ground, found[each], usual) for each in (text, *others))
    readings = [Reading(value, tuple(null)) for value, *null in zip(own, *nulls, strict=True)]
    shift, common, states = readings
    return Effect(text, others, shift, common, states, usual)


def _against(ground: Ground, now: TextEffect, before: Effect) -> Effect:
    quiet = before.null_texts if before.within() else before.quiet()
    rows = [before.null_texts.index(text) for text in quiet]
    nulls = ([reading.null[row] for row in rows] for reading in (before.shift, before.common, before.states))
    values = _values(ground, now, before.usual)
    shift, common, states = (Reading(value, tuple(null)) for value, null in zip(values, nulls, strict=True))
    return Effect(before.text, quiet, shift, common, states, before.usual, beside="harmless texts before the repair")


def _values(ground: Ground, effect: TextEffect, usual: Sequence[float]) -> tuple[float, float, float]:
    """Shift, common shift and change of the states: the first and the last where the text does most.

    The shift of a group counts beside what is usual in its draws, and so as if it were in draws of which all are alike.
    """
    shift, centre, states = (np.array(each) for each in (effect.shift, usual, effect.states))
    groups = [list(rows) for rows in ground.groups]
    moved = max(float((shift - centre)[rows].mean()) for rows in groups) + float(centre.mean())
    return float(np.exp(moved)), float(np.exp(effect.common)), float(np.exp(max(float(states[rows].mean()) for rows in groups)))
