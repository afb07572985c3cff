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
class Effect:
    """A text's effect and the harmless texts' own, in units of what the prompt itself changes."""

    text: str
    shift: float
    """Mean square of the change of the prediction over the mean square of what the whole prompt changes."""
    null: tuple[float, ...]
    """The same for harmless texts of its kind."""
    state_shift: float
    """Relative change of the hidden states that are not the text's own."""
    state_null: tuple[float, ...]

    @property
    def limit(self) -> float:
        """The null's 95th percentile: at or below it, the text does no more than harmless ones do."""
        return _quantile(self.null, 0.95)

    @property
    def state_limit(self) -> float:
        """The same for the hidden states."""
        return _quantile(self.state_null, 0.95)


def _quantile(values: Sequence[float], share: float) -> float:
    return float(torch.tensor(values, dtype=torch.float64).quantile(share))


def relative_shift(delta: Tensor, stage: Stage) -> Tensor:
    """‖δ‖² over the mean over prompts of ‖ε(prompt) − ε(empty)‖², by timestep: (K, T, P, N) → (K, T, P)."""
    scale = (stage.plain - stage.empty).square().mean(-1).mean(-1)
    return delta.square().mean(-1) / scale[None, :, None]


def strongest(evidence: Evidence, stage: Stage) -> float:
    """The relative shift at the strongest position, mean over timesteps and prompts."""
    return float(relative_shift(evidence.delta, stage).mean((1, 2)).max())


def shift(suspect: Suspect, stage: Stage, text: str) -> float:
    """The effect of ``text`` alone, in the units of ``Effect.shift``; a null measured earlier can judge it."""
    (evidence,) = gather(suspect, stage, [text])
    return strongest(evidence, stage)


def measure(suspect: Suspect, stage: Stage, text: str, *, n_null: int, seed: int, exclude: Sequence[str] = ()) -> Effect:
    """The effect of ``text`` at its strongest position, and of ``n_null`` harmless texts, none of ``exclude``, at theirs."""
    texts = [text, *harmless_texts(suspect.tokenizer, text, n_null, seed, exclude)]
    found = list(gather(suspect, stage, texts))
    shifts = [strongest(evidence, stage) for evidence in found]
    states = [float(evidence.state_shift.mean(1).max()) for evidence in found]
    return Effect(text, shifts[0], tuple(shifts[1:]), states[0], tuple(states[1:]))
