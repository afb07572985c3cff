"""Signals on made-up evidence: each answers to what it is named after, and to nothing else."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from bdaudit.measure import signals
from bdaudit.measure.probe import Evidence, Stage

T, P, D = 2, 6, 32


def made_stage() -> Stage:
    generator = torch.Generator().manual_seed(0)
    plain = torch.randn(T, P, D, generator=generator)
    nothing = torch.zeros(1)
    return Stage(("p",) * P, torch.tensor([800, 300]), nothing, nothing, plain, torch.zeros(T, P, D))


def made_evidence(delta: Tensor, share: float = 0.1, spread: float = 0.2, state: float = 0.3) -> Evidence:
    flat = torch.ones(delta.shape[:3])
    return Evidence("x", ("prefix",) * len(delta), delta, state * flat[:, 0], share * flat, spread * flat, False)


def noise(scale: float = 0.1) -> Tensor:
    return scale * torch.randn(3, T, P, D, generator=torch.Generator().manual_seed(1))


def test_noise_shift_is_nought_where_the_text_does_what_the_prompt_does() -> None:
    stage = made_stage()
    assert signals.noise_shift(made_evidence(stage.plain[None].repeat(3, 1, 1, 1)), stage) == pytest.approx(0, abs=1e-5)


def test_noise_shift_grows_by_the_logarithm_of_the_square() -> None:
    stage = made_stage()
    one, ten = (signals.noise_shift(made_evidence(noise(s)), stage) for s in (0.1, 1.0))
    assert ten - one == pytest.approx(math.log(100), abs=1e-4)


def test_common_shift_sees_what_all_prompts_share() -> None:
    stage = made_stage()
    same = torch.ones(3, T, P, D) * 0.1
    signs = torch.tensor([1.0, -1.0]).repeat(P // 2)[None, None, :, None]
    assert signals.common_shift(made_evidence(same), stage) == pytest.approx(signals.noise_shift(made_evidence(same), stage), abs=1e-4)
    assert signals.common_shift(made_evidence(same * signs), stage) < -15
    assert signals.noise_shift(made_evidence(same * signs), stage) == pytest.approx(signals.noise_shift(made_evidence(same), stage))


def test_override_sees_prompts_that_no_longer_matter() -> None:
    stage = made_stage()
    none = torch.zeros(3, T, P, D)
    towards_one = (stage.plain[:, :1] - stage.plain)[None].repeat(3, 1, 1, 1)
    moved_alike = none + 5
    assert signals.override(made_evidence(none), stage) == pytest.approx(0, abs=1e-5)
    assert signals.override(made_evidence(moved_alike), stage) == pytest.approx(0, abs=1e-4)
    assert signals.override(made_evidence(0.9 * towards_one), stage) > 4
    assert math.isfinite(signals.override(made_evidence(towards_one), stage))


def test_one_strong_position_is_enough() -> None:
    stage = made_stage()
    delta = noise()
    before = signals.measure_all(made_evidence(delta), stage)
    delta[1] = 3
    after = signals.measure_all(made_evidence(delta), stage)
    assert after["noise shift"] > before["noise shift"]
    assert after["common shift"] > before["common shift"]


def test_the_attention_and_state_signals_follow_their_figures() -> None:
    stage = made_stage()
    low, high = made_evidence(noise()), made_evidence(noise(), share=0.4, spread=0.1, state=0.9)
    assert signals.attention_share(high, stage) > signals.attention_share(low, stage)
    assert signals.assimilation(high, stage) > signals.assimilation(low, stage)
    assert signals.state_shift(high, stage) == pytest.approx(math.log(0.9))


def test_a_text_that_does_nothing_at_all_has_finite_signals() -> None:
    nothing = made_evidence(torch.zeros(3, T, P, D), share=0, spread=0, state=0)
    assert all(math.isfinite(value) for value in signals.measure_all(nothing, made_stage()).values())


def test_the_order_of_prompts_does_not_matter() -> None:
    stage, delta = made_stage(), noise()
    order = torch.tensor([3, 1, 5, 0, 4, 2])
    moved = Stage(stage.prompts, stage.timesteps, stage.latents, stage.states, stage.plain[:, order], stage.empty[:, order])
    assert signals.measure_all(made_evidence(delta[:, :, order]), moved) == pytest.approx(signals.measure_all(made_evidence(delta), stage))
