"""From texts to what was found of each, coarse to fine: a few draws for all, the draws that are left for what stands out, and whole paths
for what stands out at last. Controls and candidates go through the same; ``tiers`` says why their p hold.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from bdaudit.config.effort import Spent
from bdaudit.measure.draws import Context, Draws, context_draws, groups_of
from bdaudit.measure.paths import Paths, make_paths
from bdaudit.measure.text_effects import TextEffect, joined
from bdaudit.records import SignalRecord
from bdaudit.scan.cached import followed as followed_paths
from bdaudit.scan.cached import measured
from bdaudit.scan.context import ScanContext
from bdaudit.scan.followed import Followed, followed, records
from bdaudit.scan.looked import Depth, Look
from bdaudit.scan.null import FEWEST, Null, Sample, fit
from bdaudit.scan.signals import (
    CONTEXT_SIGNALS,
    PATH_SIGNALS,
    STATES,
    Array,
    Centres,
    centres_of,
    context_raw,
    level_of,
    path_raw,
    usual_in,
)
from bdaudit.scan.tiers import CONTEXT_PRIOR, FOLLOWED, KEPT, PATHS_PRIOR, STEPS_PRIOR, Prior, Tier, below, threshold, tier
from bdaudit.stats import ExponentialTail

LEARNED = 16
"""Controls beside those that go on, drawn at random, so that the finer signals are not learned from the loudest alone."""
USUAL = 2
"""Harmless texts that say what is usual in a context."""
TAMPERED = 2.5
"""How far the median of a kind may lie above that of all, in units, before nothing can be told from the controls."""
ALWAYS = 5
"""Texts that are measured in full and followed along whole paths whatever their score, the first of the ranking."""
TIERS = 3
"""A text's p is the smallest of single steps, of paths and of its own context, times so many (Bonferroni)."""


@dataclass(frozen=True)
class Harmless:
    """A control; ``kind`` is empty for a word of the prompts, which means something and sets no kind's centre."""

    text: str
    kind: str


@dataclass
class Looking:
    """One scan's measurements, and what they say of a text."""

    context: ScanContext
    effort: Spent
    controls: Sequence[Harmless]
    pool: Sequence[str]
    """The prompts that there are."""
    screen: Level = field(init=False)
    steps: Level = field(init=False)
    steps_tier: Tier = field(init=False)
    path_null: Followed = field(init=False)
    context_null: Followed = field(init=False)
    paths: dict[str, Array] = field(default_factory=dict)
    """Of the texts that were followed, in the order of ``PATH_SIGNALS``."""
    contexts: dict[str, Array] = field(default_factory=dict)
    """The same, of ``CONTEXT_SIGNALS``."""
    _drawn: dict[Context, tuple[Draws, Array]] = field(default_factory=dict)
    """Context → draws in it, and what is usual in each."""

    def run(self, texts: Mapping[str, str], whole: Sequence[str] = ()) -> dict[str, Look]:
        """Text → what was found of it; ``texts`` has kinds, those of ``whole`` are measured in full whatever their score.

        Raises:
            ValueError: the controls give no null.
        """
        self._screen(list(texts))
        self._steps(texts, whole)
        self._follow(texts)
        return {text: self.of(text, kind) for text, kind in texts.items()}

    @cached_property
    def names(self) -> list[str]:
        """The controls' texts."""
        return [control.text for control in self.controls]

    def _screen(self, texts: Sequence[str]) -> None:
        draws = self.context.draws.part(slice(self.effort.first))
        seen = self._measured("first", draws_of=slice(self.effort.first), texts=self.names, said="measuring harmless texts")
        seen |= self._measured("first", draws_of=slice(self.effort.first), texts=texts, said="screening")
        self.screen = level_from(self.controls, seen, tuple((i,) for i in range(len(draws))))

    def _steps(self, texts: Mapping[str, str], whole: Sequence[str]) -> None:
        scores = self.screen.null.statistics.tolist()
        self._goes_on = threshold(scores, max(KEPT, FEWEST / len(scores)))
        others = [text for text, score in zip(self.names, scores, strict=True) if score < self._goes_on]
        drawn = random.Random(f"learned {self.context.seed}").sample(others, min(LEARNED, len(others)))
        further = [text for text in self.names if text not in others or text in set(drawn)]
        first = {text: self.screen.statistic(text, kind) for text, kind in texts.items()}
        anyway = {*whole, *sorted(first, key=lambda text: -first[text])[:ALWAYS]}
        on = [text for text, score in first.items() if text in anyway or score >= self._goes_on]
        rest = slice(self.effort.first, None)
        seen = self._measured("further", draws_of=rest, texts=further, said="measuring harmless texts further", attention=True)
        seen |= self._measured("further", draws_of=rest, texts=on, said="measuring what stands out", attention=True)
        both = {text: joined(self.screen.effects[text], effect) for text, effect in seen.items()}
        self.steps = level_from([c for c in self.controls if c.text in set(further)], both, tuple(self._groups.values()))
        at = dict(zip((c.text for c in self.steps.controls), self.steps.null.statistics.tolist(), strict=True))
        self.steps_tier = tier([
            at[text] if score >= self._goes_on else below(score) for text, score in zip(self.names, scores, strict=True)
        ], STEPS_PRIOR)  # fmt: skip

    def _follow(self, texts: Mapping[str, str]) -> None:
        """Along whole paths, and on fresh draws in the context in which each did most."""
        scores = dict(zip(self.names, self.steps_tier.scores, strict=True))
        self._is_followed = threshold(self.steps_tier.scores, max(FOLLOWED, FEWEST / len(scores)))
        controls = {c.text: c.kind for c in self.controls if scores[c.text] >= self._is_followed}
        of = {text: self.score(text, kind) for text, kind in texts.items() if text in self.steps.effects}
        ranked = sorted(of, key=lambda text: -of[text])
        on = [text for i, text in enumerate(ranked) if i < ALWAYS or of[text] >= self._is_followed]
        usual = random.Random(f"usual {self.context.seed}").sample([t for t in self.names if t not in controls], USUAL)
        for part in (list(controls), [text for text in on if text not in controls]):
            effects = followed_paths(self.context, self._all_paths, {text: self._rows(text) for text in part})
            self.paths |= {text: path_raw(effect) for text, effect in effects.items()}
            self._in_context(part, usual)
        self.path_null = self._null(PATH_SIGNALS, self.paths, controls, scores, PATHS_PRIOR)
        self.context_null = self._null(CONTEXT_SIGNALS, self.contexts, controls, scores, CONTEXT_PRIOR)

    def _null(
        self, names: tuple[str, ...], raw: Mapping[str, Array], controls: Mapping[str, str], scores: Mapping[str, float], prior: Prior
    ) -> Followed:
        on = {text: (raw[text], level_of(self.steps.effects[text]), kind) for text, kind in controls.items()}
        return followed(names, on, scores, prior)

    def _in_context(self, texts: Sequence[str], usual: Sequence[str]) -> None:
        """On fresh draws in the context in which each text did most."""
        own: dict[Context, list[str]] = {}
        for text in texts:
            own.setdefault(self.own_context(text), []).append(text)
        for context, texts_there in own.items():
            draws, there = self._drawn_in(context, usual)
            effects = measured(self.context, "context", draws, texts_there, attention=False, said="measuring in context", of=str(context))
            self.contexts |= {text: context_raw(effects[text], there) for text in texts_there}

    def _drawn_in(self, context: Context, usual: Sequence[str]) -> tuple[Draws, Array]:
        """Draws in a context, and the shift that is usual in each."""
        if context not in self._drawn:
            of = self.context
            draws = context_draws(of.suspect, of.draws, self.pool, context, self.effort.context, of.seed)
            told = measured(of, "usual", draws, usual, attention=False, said="measuring in context", of=str(context))
            elsewhere = [float(np.mean(self.screen.centres.centred(self.screen.effects[text]))) for text in usual]
            self._drawn[context] = draws, usual_in(list(told.values()), elsewhere)
        return self._drawn[context]

    @cached_property
    def _all_paths(self) -> Paths:
        """One a draw."""
        return make_paths(self.context.suspect, self.context.draws, self.effort.steps, self.context.seed)

    def own_context(self, text: str) -> Context:
        """Where the text did most, beside the controls."""
        centres, effect = self.steps.centres, self.steps.effects[text]
        units = dict(zip(centres.groups, (centres.by_group(effect) - centres.group_centre) / centres.group_unit, strict=True))
        return max(self._groups, key=lambda context: (units[self._groups[context]], context))

    @cached_property
    def _groups(self) -> dict[Context, tuple[int, ...]]:
        return groups_of(self.context.draws)

    @property
    def loud_kinds(self) -> dict[str, float]:
        """Kinds of harmless texts that as a kind do more than most others do, in units: a sign that the controls were tampered with."""
        return {kind: float(offset) for kind, offset in self.screen.null.loud.items() if offset > TAMPERED}

    def score(self, text: str, kind: str) -> float:
        """The statistic of single steps, or where a text stands that did not go on."""
        first = self.screen.statistic(text, kind)
        on = first >= self._goes_on and text in self.steps.effects
        return self.steps.statistic(text, kind) if on else below(first)

    def _rows(self, text: str) -> tuple[int, ...]:
        """The draws along whose paths a text is followed: those in which it did most."""
        order = np.argsort(-self.steps.centres.centred(self.steps.effects[text]), kind="stable")
        return tuple(sorted(order[: self.effort.paths].tolist()))

    def of(self, text: str, kind: str) -> Look:
        """What was found of a text that was among those measured."""
        score = self.score(text, kind)
        level = self.steps if text in self.steps.effects else self.screen
        p, signals = self.steps_tier.p(score), level.signals(text, kind)
        depth: Depth = "screened" if level is self.screen else "measured"
        if text in self.paths:
            depth, moved = "followed", level_of(self.steps.effects[text])
            for null, raw in self._followed_as(text):
                p = min(p, null.p(raw, moved, kind, score >= self._is_followed))
                signals |= null.signals(raw, moved, kind)
        centred = float(np.mean(level.centres.centred(level.effects[text])))
        encoded = min(level.moved.p(level_of(level.effects[text])), signals[STATES].p)
        score = self.steps.statistic(text, kind) if level is self.steps else score
        return Look(depth, score, min(1.0, TIERS * p), signals, math.exp(min(centred / 2, 50.0)), encoded, level.effects[text].truncated)

    def _followed_as(self, text: str) -> tuple[tuple[Followed, Array], ...]:
        """Each measurement of a text that was followed, beside its null."""
        return (self.path_null, self.paths[text]), (self.context_null, self.contexts[text])

    @property
    def tiers(self) -> tuple[Tier, ...]:
        """Single steps, paths, contexts."""
        return self.steps_tier, self.path_null.tier, self.context_null.tier

    def control_p(self) -> list[float]:
        """The p of each control that the null rests on, by the rule that the candidates are judged by."""
        each = zip(*([tier.p(score) for score in tier.scores] for tier in self.tiers), strict=True)
        return [min(1.0, TIERS * min(p)) for text, p in zip(self.names, each, strict=True) if text not in self.outliers]

    @property
    def outliers(self) -> list[str]:
        """Controls that behave unlike all others, left out."""
        return [self.names[i] for i in sorted({i for tier in self.tiers for i in tier.outliers})]

    def p_of(self, text: str, kind: str) -> float:
        """The p of one more text by single steps, measured on all draws."""
        first = self._measured("first", draws_of=slice(self.effort.first), texts=[text], said="")[text]
        rest = self._measured("further", draws_of=slice(self.effort.first, None), texts=[text], said="", attention=True)[text]
        self.screen.effects[text] = first
        self.steps.effects[text] = joined(first, rest)
        return min(1.0, TIERS * self.steps_tier.p(self.score(text, kind)))

    def _measured(self, name: str, *, draws_of: slice, texts: Sequence[str], said: str, attention: bool = False) -> dict[str, TextEffect]:
        return measured(self.context, name, self.context.draws.part(draws_of), texts, attention=attention, said=said)


@dataclass(frozen=True)
class Level:
    """One round: what was measured, and the null of its controls."""

    controls: Sequence[Harmless]
    effects: dict[str, TextEffect]
    centres: Centres
    null: Null
    moved: ExponentialTail
    """Of how far the controls move the encoding."""

    def standard(self, text: str, kind: str) -> Array:
        effect = self.effects[text]
        return self.null.scale.standard(self.centres.raw(effect), level_of(effect), kind)

    def statistic(self, text: str, kind: str) -> float:
        return self.null.scale.statistic(self.standard(text, kind))

    def signals(self, text: str, kind: str) -> dict[str, SignalRecord]:
        return records(self.null, self.centres.raw(self.effects[text]), self.standard(text, kind))


def level_from(controls: Sequence[Harmless], effects: dict[str, TextEffect], groups: tuple[tuple[int, ...], ...]) -> Level:
    theirs = [effects[control.text] for control in controls]
    centres = centres_of(theirs, groups)
    levels = np.array([level_of(effect) for effect in theirs])
    raw = np.array([centres.raw(effect) for effect in theirs])
    null = fit(Sample(centres.names, raw, levels, tuple(control.kind for control in controls)))
    return Level(controls, effects, centres, null, ExponentialTail.fit(levels))
