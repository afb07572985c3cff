"""The signals: each one number a position from one text's evidence, larger being more suspicious. Pure functions, one registry.

All are logarithms of ratios, so that differences and robust scales make sense.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bdaudit.measure import effect
from bdaudit.measure.probe import Evidence, Stage

Signal = Callable[[Evidence, Stage], Tensor]
"""(K,): one value for each position the text was put in."""
Values = dict[str, dict[str, float]]
"""Position → signal → value."""
_TINY = 1e-8


def _log(value: Tensor) -> Tensor:
    return torch.log(value.clamp_min(_TINY))


def log_noise(delta: Tensor, stage: Stage) -> Tensor:
    """``noise_shift`` of changes of the prediction, (K, T, P, N) → (K,)."""
    return _log(effect.relative_shift(delta, stage).mean(1)).mean(-1)


def log_common(delta: Tensor, stage: Stage) -> Tensor:
    """``common_shift`` of changes of the prediction, (K, T, P, N) → (K,)."""
    return _log(effect.common_shift(delta, stage).mean(1))


def noise_shift(evidence: Evidence, stage: Stage) -> Tensor:
    """log of ‖ε(prompt + text) − ε(prompt)‖² over ‖ε(prompt) − ε(empty)‖², mean over timesteps, geometric mean over prompts.

    0 is a text that moves the prediction as much as the whole prompt does. After NaviT2I's one-step score (2503.06453). A trigger moves
    every prompt; a prompt that many harmless words tip over counts as one among the others.
    """
    return log_noise(evidence.delta, stage)


def common_shift(evidence: Evidence, stage: Stage) -> Tensor:
    """log of the same for the mean change over prompts, ‖mean_p δ_p‖²: what moves all pictures alike (a patch, a style, one image)."""
    return log_common(evidence.delta, stage)


def override(evidence: Evidence, stage: Stage) -> Tensor:
    """log of how much less the prompts differ with the text in them than without, at the noisiest timestep, where only words differ."""
    plain, changed = stage.plain[0], stage.plain[0] + evidence.delta[:, 0]
    before = (plain - plain.mean(0)).square().mean()
    after = (changed - changed.mean(1, keepdim=True)).square().mean((1, 2))
    return _log(before / after.clamp_min(_TINY))


def attention_share(evidence: Evidence, stage: Stage) -> Tensor:
    """log of the share of cross-attention that the text's own tokens draw."""
    return _log(evidence.share.mean((1, 2)))


def assimilation(evidence: Evidence, stage: Stage) -> Tensor:
    """−log of T2IShield's F (2407.04215): high where all words' maps look alike."""
    return -_log(evidence.spread.mean((1, 2)))


def state_shift(evidence: Evidence, stage: Stage) -> Tensor:
    """log of how far the text moves the hidden states of the other words: high for a backdoor in the text encoder."""
    return _log(evidence.state_shift.mean(1))


SIGNALS: dict[str, Signal] = {
    "noise shift": noise_shift,
    "common shift": common_shift,
    "override": override,
    "attention share": attention_share,
    "assimilation": assimilation,
    "state shift": state_shift,
}


def measure_all(evidence: Evidence, stage: Stage) -> Values:
    """Every signal of one text at every position."""
    columns = {name: signal(evidence, stage).tolist() for name, signal in SIGNALS.items()}
    return {place: {name: float(column[k]) for name, column in columns.items()} for k, place in enumerate(evidence.positions)}
