"""One round of a scan: what was measured of texts, and the null of the controls among them. Numbers in, numbers out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bdaudit.scan.followed import records
from bdaudit.scan.null import Null, Sample, fit
from bdaudit.scan.signals import Array, Centres, Groups, centres_of, level_of
from bdaudit.stats import ExponentialTail

if TYPE_CHECKING:
    from bdaudit.measure.text_effects import TextEffect
    from bdaudit.records import SignalRecord


@dataclass(frozen=True)
class Harmless:
    """A control; ``kind`` is empty for a word of the prompts, which means something and sets no kind's centre."""

    text: str
    kind: str


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


def level_from(controls: Sequence[Harmless], effects: dict[str, TextEffect], groups: Groups) -> Level:
    """``effects`` has more texts than the controls.

    Raises:
        ValueError: the controls give no null.
    """
    theirs = [effects[control.text] for control in controls]
    centres = centres_of(theirs, groups)
    levels = np.array([level_of(effect) for effect in theirs])
    raw = np.array([centres.raw(effect) for effect in theirs])
    null = fit(Sample(centres.names, raw, levels, tuple(control.kind for control in controls)))
    return Level(controls, effects, centres, null, ExponentialTail.fit(levels))
