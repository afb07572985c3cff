"""How much a text moves one denoising step, against harmless texts of its kind: no pictures needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bdaudit.measure.controls import harmless_texts
from bdaudit.measure.probe import Evidence, Stage, gather
from bdaudit.pipeline.suspect import Suspect


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

    def within(self, share: float = 1.0) -> bool:
        """Whether the text moves the prediction no more than ``share`` of what harmless ones do, one by one and in common."""
        return all(reading.value <= share * reading.limit for reading in (self.shift, self.common))

    def quiet(self) -> tuple[str, ...]:
        """The harmless texts that do not take after the trigger: within the limit, or nearer to their median than to the trigger."""
        usual = float(torch.tensor(self.shift.null, dtype=torch.float64).median())
        loud = max(self.shift.limit, (usual * self.shift.value) ** 0.5)
        return tuple(text for text, value in zip(self.null_texts, self.shift.null, strict=True) if value <= loud)


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
    (evidence,) = gather(suspect, stage, [text])
    return _strongest(evidence, stage)[0]


def measure(suspect: Suspect, stage: Stage, text: str, *, n_null: int, seed: int, exclude: Sequence[str] = ()) -> Effect:
    """The effect of ``text`` at its strongest position, and of ``n_null`` harmless texts, none of ``exclude``, at theirs."""
    texts = [text, *harmless_texts(suspect.tokenizer, text, n_null, seed, exclude)]
    columns = zip(*(_strongest(evidence, stage) for evidence in gather(suspect, stage, texts)), strict=True)
    return Effect(text, tuple(texts[1:]), *(Reading(first, tuple(rest)) for first, *rest in columns))


def _strongest(evidence: Evidence, stage: Stage) -> tuple[float, float, float]:
    """Shift, common shift and change of the states, each at its strongest position, mean over timesteps and prompts."""
    shifts = relative_shift(evidence.delta, stage).mean((1, 2))
    common = common_shift(evidence.delta, stage).mean(1)
    return float(shifts.max()), float(common.max()), float(evidence.state_shift.mean(1).max())
