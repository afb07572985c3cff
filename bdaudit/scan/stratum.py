"""Texts of some kinds beside the controls that they are compared with, coarse to fine. Numbers in, numbers out.

A text that means nothing is not expected to do what a word of the prompts does: its null is without them. For a word or a phrase, which may
mean something, it is all controls.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from bdaudit.scan.followed import Followed, Reached, followed
from bdaudit.scan.level import Harmless, Level, level_from
from bdaudit.scan.null import FEWEST, MEANINGLESS
from bdaudit.scan.signals import Along, Groups, along, level_of
from bdaudit.scan.tiers import FOLLOWED, KEPT, STEPS_PRIOR, Tier, below, threshold, tier

if TYPE_CHECKING:
    from bdaudit.measure.paths import PathEffect
    from bdaudit.measure.text_effects import TextEffect

LEARNED = 16
"""Controls beside those that go on, drawn at random, so that the finer signals are not learned from the loudest alone."""


@dataclass
class Stratum:
    """The null of one group of kinds, round by round."""

    controls: Sequence[Harmless]
    screen: Level = field(init=False)
    goes_on: float = field(init=False)
    """The statistic from which a text is measured further."""
    steps: Level = field(init=False)
    steps_tier: Tier = field(init=False)
    is_followed: float = field(init=False)
    """The score from which a text is followed along paths."""
    along: Along = field(init=False)
    last: Followed = field(init=False)

    @property
    def names(self) -> list[str]:
        """The controls' texts."""
        return [control.text for control in self.controls]

    def begin(self, effects: dict[str, TextEffect], draws: int) -> None:
        """From what was measured of all texts on the first draws."""
        self.screen = level_from(self.controls, effects, tuple((i,) for i in range(draws)))
        scores = self._screened
        self.goes_on = threshold(scores, max(KEPT, FEWEST / len(scores)))

    def further(self, seed: int) -> list[str]:
        """The controls that are measured further: those that stand out, and ``LEARNED`` others."""
        others = [text for text, score in zip(self.names, self._screened, strict=True) if score < self.goes_on]
        drawn = {*random.Random(f"learned {seed}").sample(others, min(LEARNED, len(others)))}
        return [text for text in self.names if text not in others or text in drawn]

    def go_on(self, effects: dict[str, TextEffect], groups: Groups, seed: int) -> None:
        """From what was measured on all draws of texts that stand out."""
        further = set(self.further(seed))
        self.steps = level_from([control for control in self.controls if control.text in further], effects, groups)
        at = dict(zip((control.text for control in self.steps.controls), self.steps.null.statistics.tolist(), strict=True))
        screened = zip(self.names, self._screened, strict=True)
        self.steps_tier = tier([at[text] if score >= self.goes_on else below(score) for text, score in screened], STEPS_PRIOR)
        self.is_followed = threshold(self.steps_tier.scores, max(FOLLOWED, FEWEST / len(self.controls)))

    @property
    def followed(self) -> dict[str, str]:
        """Text → kind of the controls that are followed."""
        scores = zip(self.controls, self.steps_tier.scores, strict=True)
        return {control.text: control.kind for control, score in scores if score >= self.is_followed}

    def finish(self, paths: Mapping[str, PathEffect]) -> None:
        """From what was measured along paths of texts that stand out at last."""
        self.along = along([paths[text] for text in self.followed])
        scores = dict(zip(self.names, self.steps_tier.scores, strict=True))  # each without itself
        on = {text: self.reached(text, kind, paths[text]) for text, kind in self.followed.items()}
        self.last = followed({text: replace(one, steps=scores[text]) for text, one in on.items()}, scores)

    def reached(self, text: str, kind: str, paths: PathEffect) -> Reached:
        """All that was measured of a text that was followed."""
        return Reached(self.score(text, kind), self.along.raw(paths), level_of(self.steps.effects[text]), kind)

    def p(self, score: float, reached: Reached | None, selected: bool) -> float:
        """The chance that a harmless text stands out so, by its ``score`` alone where it was not followed; ``selected`` says whether that
        was by the rule that chose the controls."""
        by_steps = self.steps_tier.p(score)
        if reached is None:
            return by_steps
        p = self.last.p(reached, selected)
        return p if selected else min(1.0, 2 * min(p, by_steps))

    @property
    def _screened(self) -> list[float]:
        scores: list[float] = self.screen.null.statistics.tolist()
        return scores

    def stands_out(self, text: str, kind: str) -> bool:
        """On the first draws, as much as the controls that are measured further."""
        return self.screen.statistic(text, kind) >= self.goes_on

    def score(self, text: str, kind: str) -> float:
        """The statistic of single steps, or where a text stands that did not go on."""
        on = self.stands_out(text, kind) and text in self.steps.effects
        return self.steps.statistic(text, kind) if on else below(self.screen.statistic(text, kind))

    @property
    def tiers(self) -> tuple[Tier, ...]:
        """Of single steps, and of all."""
        return self.steps_tier, self.last.tier

    @property
    def loud(self) -> list[str]:
        """Controls far beyond all that is usual."""
        return [self.names[i] for i in self.last.tier.loud]


def strata_of(controls: Sequence[Harmless]) -> dict[bool, Stratum]:
    """Whether a text means nothing → what it is compared with."""
    return {False: Stratum(controls), True: Stratum([control for control in controls if control.kind])}


def means_nothing(kind: str) -> bool:
    """Whether texts of a kind are not expected to do what words do."""
    return kind in MEANINGLESS
