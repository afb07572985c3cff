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
    return Evidence("x", ("prefix", "middle", "suffix")[: len(delta)], delta, state * flat[:, 0], False, share * flat, spread * flat)


def one(values: Tensor) -> float:
    """The value of evidence whose positions are alike."""
    assert values.shape == (3,)
    assert values.tolist() == pytest.approx([values[0].item()] * 3, abs=1e-4)
    return values[0].item()


def noise(scale: float = 0.1) -> Tensor:
    return scale * torch.randn(3, T, P, D, generator=torch.Generator().manual_seed(1))


def test_noise_shift_is_nought_where_the_text_does_what_the_prompt_does() -> None:
    stage = made_stage()
    shift = one(signals.noise_shift(made_evidence(stage.plain[None].repeat(3, 1, 1, 1)), stage))
    assert -0.05 < shift <= 0, "a geometric mean over prompts that are not quite alike"


def test_one_prompt_that_tips_over_is_no_trigger() -> None:
    stage, alike, tipped = made_stage(), noise(), noise()
    tipped[:, :, 0] *= 30
    everywhere = signals.noise_shift(made_evidence(30 * alike), stage) - signals.noise_shift(made_evidence(alike), stage)
    once = signals.noise_shift(made_evidence(tipped), stage) - signals.noise_shift(made_evidence(alike), stage)
    assert once.tolist() == pytest.approx((everywhere / P).tolist(), abs=1e-3)


def test_noise_shift_grows_by_the_logarithm_of_the_square() -> None:
    stage = made_stage()
    small, large = (signals.noise_shift(made_evidence(noise(s)), stage) for s in (0.1, 1.0))
    assert (large - small).tolist() == pytest.approx([math.log(100)] * 3, abs=1e-4)


def test_common_shift_sees_what_all_prompts_share() -> None:
    stage = made_stage()
    same = torch.ones(3, T, P, D) * 0.1
    signs = torch.tensor([1.0, -1.0]).repeat(P // 2)[None, None, :, None]
    whole = one(signals.noise_shift(made_evidence(same), stage))
    assert one(signals.common_shift(made_evidence(same), stage)) == pytest.approx(whole, abs=1e-4)
    assert one(signals.common_shift(made_evidence(same * signs), stage)) < -15
    assert one(signals.noise_shift(made_evidence(same * signs), stage)) == pytest.approx(whole)


def test_override_sees_prompts_that_no_longer_matter() -> None:
    stage = made_stage()
    none = torch.zeros(3, T, P, D)
    towards_one = (stage.plain[:, :1] - stage.plain)[None].repeat(3, 1, 1, 1)
    assert one(signals.override(made_evidence(none), stage)) == pytest.approx(0, abs=1e-5)
    assert one(signals.override(made_evidence(none + 5), stage)) == pytest.approx(0, abs=1e-4)
    assert one(signals.override(made_evidence(0.9 * towards_one), stage)) > 4
    assert signals.override(made_evidence(towards_one), stage).isfinite().all()


@pytest.mark.parametrize("name", list(signals.SIGNALS))
def test_a_position_is_measured_by_itself(name: str) -> None:
    stage, signal = made_stage(), signals.SIGNALS[name]
    before = made_evidence(noise())
    delta, state, share, spread = (t.clone() for t in (before.delta, before.state_shift, before.share, before.spread))
    delta[1] = (stage.plain.mean(1, keepdim=True) - stage.plain) * 0.9 + 3
    state[1], share[1], spread[1] = 0.9, 0.4, 0.1
    after = Evidence("x", before.positions, delta, state, False, share, spread)
    old, new = signal(before, stage), signal(after, stage)
    assert (new > old).tolist() == [False, True, False]
    assert new[[0, 2]].tolist() == pytest.approx(old[[0, 2]].tolist())


def test_values_are_named_by_position_and_signal() -> None:
    stage = made_stage()
    flat = torch.ones(3, T, P)
    delta = noise() * torch.tensor([1.0, 2.0, 3.0])[:, None, None, None]
    evidence = Evidence("x", ("prefix", "middle", "suffix"), delta, flat[:, 0], False, flat, flat)
    values = signals.measure_all(evidence, stage)
    assert list(values) == ["prefix", "middle", "suffix"]
    assert all(of_place.keys() == signals.SIGNALS.keys() for of_place in values.values())
    assert [of_place["noise shift"] for of_place in values.values()] == pytest.approx(signals.noise_shift(evidence, stage).tolist())


def test_the_attention_and_state_signals_follow_their_figures() -> None:
    stage = made_stage()
    low, high = made_evidence(noise()), made_evidence(noise(), share=0.4, spread=0.1, state=0.9)
    assert one(signals.attention_share(high, stage)) > one(signals.attention_share(low, stage))
    assert one(signals.assimilation(high, stage)) > one(signals.assimilation(low, stage))
    assert one(signals.state_shift(high, stage)) == pytest.approx(math.log(0.9))


def test_a_text_that_does_nothing_at_all_has_finite_signals() -> None:
    nothing = made_evidence(torch.zeros(3, T, P, D), share=0, spread=0, state=0)
    assert all(signal(nothing, made_stage()).isfinite().all() for signal in signals.SIGNALS.values())


@pytest.mark.parametrize("name", list(signals.SIGNALS))
def test_the_order_of_prompts_does_not_matter(name: str) -> None:
    stage, delta, signal = made_stage(), noise(), signals.SIGNALS[name]
    order = torch.tensor([3, 1, 5, 0, 4, 2])
    moved = Stage(stage.prompts, stage.timesteps, stage.latents, stage.heard, stage.plain[:, order], stage.empty[:, order])
    turned = signal(made_evidence(delta[:, :, order]), moved)
    assert turned.tolist() == pytest.approx(signal(made_evidence(delta), stage).tolist(), abs=1e-4)
