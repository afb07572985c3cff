"""Texts of some kinds beside the controls that they are compared with, coarse to fine. Numbers in, numbers out.

A text that means nothing is not expected to do what a word of the prompts does: its null is without them. For a word or a phrase, which may
mean something, it is all controls.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bdaudit.scan.followed import Followed, followed
from bdaudit.scan.level import Harmless, Level, level_from
from bdaudit.scan.null import FEWEST, MEANINGLESS
from bdaudit.scan.signals import CONTEXT_SIGNALS, PATH_SIGNALS, Array, Groups, level_of
from bdaudit.scan.tiers import CONTEXT_PRIOR, FOLLOWED, KEPT, PATHS_PRIOR, STEPS_PRIOR, Prior, Tier, below, threshold, tier

if TYPE_CHECKING:
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
    path_null: Followed = field(init=False)
    context_null: Followed = field(init=False)

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

    def finish(self, paths: Mapping[str, Array], contexts: Mapping[str, Array]) -> None:
        """From what was measured along paths and in contexts of texts that stand out at last."""
        self.path_null = self._null(PATH_SIGNALS, paths, PATHS_PRIOR)
        self.context_null = self._null(CONTEXT_SIGNALS, contexts, CONTEXT_PRIOR)

    def _null(self, names: tuple[str, ...], raw: Mapping[str, Array], prior: Prior) -> Followed:
        on = {text: (raw[text], level_of(self.steps.effects[text]), kind) for text, kind in self.followed.items()}
        return followed(names, on, dict(zip(self.names, self.steps_tier.scores, strict=True)), prior)

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
        """Single steps, paths, contexts."""
        return self.steps_tier, self.path_null.tier, self.context_null.tier

    @property
    def outliers(self) -> set[str]:
        """Controls that behave unlike all others, left out."""
        return {self.names[i] for tier in self.tiers for i in tier.outliers}


def strata_of(controls: Sequence[Harmless]) -> dict[bool, Stratum]:
    """Whether a text means nothing → what it is compared with."""
    return {False: Stratum(controls), True: Stratum([control for control in controls if control.kind])}


def means_nothing(kind: str) -> bool:
    """Whether texts of a kind are not expected to do what words do."""
    return kind in MEANINGLESS
