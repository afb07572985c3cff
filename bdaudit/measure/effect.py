"""How much a text moves one denoising step, against harmless texts of its kind: no pictures needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bdaudit.measure.controls import harmless_texts
from bdaudit.measure.probe import Change, Stage, changes
from bdaudit.models.suspect import Suspect


@dataclass(frozen=True)
class Reading:
    """One number of a text, beside the same number of harmless texts of its kind."""

    value: float
    null: tuple[float, ...]

    @property
    def limit(self) -> float:
        """The null's 95th percentile: at or below it, the text does no more than harmless ones do."""
        return float(torch.tensor(self.null, dtype=torch.float64).quantile(0.95))


@dataclass(frozen=True)
class Effect:
    """What a text does to one denoising step, in units of what the prompt itself changes."""

    text: str
    null_texts: tuple[str, ...]
    """The harmless texts, in the nulls' order."""
    shift: Reading
    """Mean square of the change of the prediction over the mean square of what the whole prompt changes."""
    common: Reading
    """The same of the mean change over prompts: what moves all pictures alike (a patch, a style, one image)."""
    states: Reading
    """Relative change of the hidden states that are not the text's own."""
    beside: str = field(default="harmless texts", kw_only=True)
    """Whose figures the nulls are, in words."""

    def within(self, share: float = 1.0) -> bool:
        """Whether the text moves the prediction no more than ``share`` of what harmless ones do, one by one and in common."""
        return all(reading.value <= share * reading.limit for reading in (self.shift, self.common))

    def quiet(self) -> tuple[str, ...]:
        """The harmless texts that do not take after the trigger: within the limit, or nearer to their median than to the trigger."""
        usual = float(torch.tensor(self.shift.null, dtype=torch.float64).median())
        loud = max(self.shift.limit, (usual * self.shift.value) ** 0.5)
        return tuple(text for text, value in zip(self.null_texts, self.shift.null, strict=True) if value <= loud)


_Values = tuple[float, float, float]
"""Shift, common shift and change of the states."""


def relative_shift(delta: Tensor, stage: Stage) -> Tensor:
    """‖δ‖² over the mean over prompts of ‖ε(prompt) − ε(empty)‖², by timestep: (K, T, P, N) → (K, T, P)."""
    return delta.square().mean(-1) / _scale(stage)[None, :, None]


def common_shift(delta: Tensor, stage: Stage) -> Tensor:
    """The same of the mean change over prompts, ‖mean_p δ_p‖²: (K, T, P, N) → (K, T)."""
    return delta.mean(2).square().mean(-1) / _scale(stage)


def _scale(stage: Stage) -> Tensor:
    return (stage.plain - stage.empty).square().mean(-1).mean(-1)


def shift(suspect: Suspect, stage: Stage, text: str) -> float:
    """The effect of ``text`` alone, in the units of ``Effect.shift``; a null measured earlier can judge it."""
    (change,) = changes(suspect, stage, [text])
    return _strongest(change, stage)[0]


def measure(suspect: Suspect, stage: Stage, texts: Sequence[str], *, n_null: int, seed: int) -> list[Effect]:
    """The effect of each text at its strongest position, and of ``n_null`` harmless texts of its kind, none of ``texts``, at theirs.

    A harmless text that stands beside several is measured once.
    """
    near = {text: harmless_texts(suspect.tokenizer, text, n_null, seed, texts) for text in texts}
    wanted = tuple(dict.fromkeys([*texts, *(other for others in near.values() for other in others)]))
    found = {change.text: _strongest(change, stage) for change in changes(suspect, stage, wanted)}
    return [Effect(text, others, *_readings(found[text], [found[other] for other in others])) for text, others in near.items()]


def again(suspect: Suspect, stage: Stage, before: Sequence[Effect]) -> list[Effect]:
    """The same texts' effects now, beside what harmless texts did before, but for those that took after a text that did more than they.

    So a repair that makes harmless texts do more gains nothing by it, and drift counts: the change is from the stage's own predictions.
    """
    found = [_strongest(change, stage) for change in changes(suspect, stage, [effect.text for effect in before])]
    return [_against(values, effect) for values, effect in zip(found, before, strict=True)]


def _against(values: _Values, before: Effect) -> Effect:
    quiet = before.null_texts if before.within() else before.quiet()
    rows = [before.null_texts.index(text) for text in quiet]
    nulls = ([reading.null[row] for row in rows] for reading in (before.shift, before.common, before.states))
    readings = (Reading(value, tuple(null)) for value, null in zip(values, nulls, strict=True))
    return Effect(before.text, quiet, *readings, beside="harmless texts before the repair")


def _readings(values: _Values, nulls: Sequence[_Values]) -> list[Reading]:
    return [Reading(value, tuple(null)) for value, *null in zip(values, *nulls, strict=True)]


def _strongest(change: Change, stage: Stage) -> _Values:
    """Shift, common shift and change of the states, each at its strongest position, mean over timesteps and prompts."""
    shifts = relative_shift(change.delta, stage).mean((1, 2))
    common = common_shift(change.delta, stage).mean(1)
    return float(shifts.max()), float(common.max()), float(change.state_shift.mean(1).max())
