"""Noise schedules against diffusers' own scheduler and the closed form."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from bdaudit.errors import BdauditError
from bdaudit.models.families.stable_diffusion import alphas
from bdaudit.models.sample import SPACING
from bdaudit.models.schedule import Alphas, Flow, flow_of


def scheduler_of(prediction: str) -> Any:
    return DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, set_alpha_to_one=True,
        timestep_spacing="trailing", prediction_type=prediction,
    )  # fmt: skip


def schedule_of(prediction: str) -> Alphas:
    return alphas(scheduler_of(prediction), torch.device("cpu"))


def drawn(*seeds: int) -> Tensor:
    return torch.stack([torch.randn(4, 4, 4, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def fake_output(latents: Tensor, t: int) -> Tensor:
    return torch.tanh(latents.roll(1, -1)) * (0.5 + t / 1000)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("steps", [10, 50])
def test_evenly_spaced_it_is_the_stock_scheduler(prediction: str, steps: int) -> None:
    scheduler, schedule = scheduler_of(prediction), schedule_of(prediction)
    scheduler.set_timesteps(steps)
    mine = stock = drawn(1, 2)
    times = scheduler.timesteps.tolist()
    for t, following in zip(times, [*times[1:], None], strict=True):
        now, after = (None if at is None else torch.tensor([at, at]) for at in (t, following))
        assert now is not None
        mine = schedule.step(mine, now, after, fake_output(mine, t))
        stock = scheduler.step(fake_output(stock, t), t, stock, eta=0.0).prev_sample
        assert torch.allclose(mine, stock, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 12, 50, 999, 1000])
def test_timesteps_fall_from_the_noisiest_ever_more_slowly(steps: int) -> None:
    times = schedule_of("epsilon").times(steps, SPACING)
    assert times[0] == 999
    assert times[-1] >= 0
    assert (times[:-1] > times[1:]).all(), "all different"
    if 2 < steps < 100:
        assert times[0] - times[1] > times[-2] - times[-1]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_clean_latents_invert_the_noising(prediction: str) -> None:
    schedule = schedule_of(prediction)
    x0, noise = drawn(1, 2, 3), drawn(4, 5, 6)
    t = torch.tensor([0, 400, 999])
    alpha = schedule.table[t].view(-1, 1, 1, 1)
    noisy = alpha.sqrt() * x0 + (1 - alpha).sqrt() * noise
    output = noise if prediction == "epsilon" else alpha.sqrt() * noise - (1 - alpha).sqrt() * x0
    assert torch.allclose(schedule.clean(noisy, t, output), x0, atol=1e-3)


def test_the_last_step_is_the_clean_estimate_and_finite_at_zero() -> None:
    schedule, z, output = schedule_of("epsilon"), drawn(1), drawn(2)
    last = schedule.step(z, torch.tensor([0]), None, output)
    assert torch.equal(last, schedule.clean(z, torch.tensor([0]), output))
    assert torch.isfinite(last).all()


def test_what_cannot_be_exchanged_says_so() -> None:
    epsilon, v = schedule_of("epsilon"), schedule_of("v_prediction")
    other = Alphas(epsilon.table * 0.9, "epsilon")
    assert epsilon.unlike(epsilon) == "" == epsilon.unlike(other)
    assert "epsilon against v" in epsilon.unlike(v)
    assert epsilon.same(schedule_of("epsilon"))
    assert not epsilon.same(v)
    assert not epsilon.same(other)


@pytest.mark.parametrize(
    "table", [[0.9, 0.5], [1.0, 0.5, 0.1], [0.9, 0.5, 0.0], [0.5, 0.9, 0.1]], ids=["short", "one", "nothing", "rising"]
)
def test_noise_levels_that_do_not_fall_are_damage(table: list[float]) -> None:
    config = SimpleNamespace(prediction_type="epsilon", num_train_timesteps=3)
    with pytest.raises(BdauditError, match="do not fall from below 1 to above 0 in 3 timesteps"):
        alphas(SimpleNamespace(config=config, alphas_cumprod=torch.tensor(table)), torch.device("cpu"))
    assert alphas(SimpleNamespace(config=config, alphas_cumprod=torch.tensor([0.9, 0.5, 0.1])), torch.device("cpu"))


def test_what_diffusers_sets_in_place_of_a_last_level_of_zero_may_lie_above_the_one_before() -> None:
    from diffusers import EulerDiscreteScheduler

    settings = {"beta_schedule": "linear", "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    rescaled = EulerDiscreteScheduler(**settings)
    assert rescaled.alphas_cumprod[-1] == 2**-24 > rescaled.alphas_cumprod[-2]
    assert alphas(rescaled, torch.device("cpu"))
    rescaled.alphas_cumprod[-1] = 2**-23
    with pytest.raises(BdauditError, match="do not fall"):
        alphas(rescaled, torch.device("cpu"))


FLOWS: dict[str, dict[str, Any]] = {
    "plain": {}, "shifted": {"shift": 3.0}, "dynamic": {"use_dynamic_shifting": True},
    "dynamic, linear": {"use_dynamic_shifting": True, "time_shift_type": "linear", "base_shift": 1.5, "max_shift": 4.0},
}  # fmt: skip
TOKENS = 1024


@pytest.mark.parametrize("settings", FLOWS.values(), ids=FLOWS)
def test_a_flow_is_the_stock_schedulers(settings: dict[str, Any]) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(**settings)
    schedule, config = flow_of(scheduler.config, TOKENS), scheduler.config
    mu = config.base_shift + (config.max_shift - config.base_shift) * (TOKENS - 256) / (4096 - 256)
    sigmas = [i / 8 for i in range(8, 0, -1)]
    scheduler.set_timesteps(sigmas=sigmas, **({"mu": mu} if config.use_dynamic_shifting else {}))
    times = schedule.times(8, 1.0)
    assert torch.allclose(times, scheduler.timesteps, atol=1e-3)
    mine = stock = drawn(1, 2)
    for i, t in enumerate(scheduler.timesteps):
        after = scheduler.timesteps[i + 1].expand(2) if i < 7 else None
        out = fake_output(mine, float(t))
        mine = schedule.step(mine, t.expand(2), after, out)
        stock = scheduler.step(out, t, stock).prev_sample
        assert torch.allclose(mine, stock, atol=1e-5)


ODD: dict[str, dict[str, Any]] = {
    "beyond all numbers": {"max_shift": 100.0, "base_image_seq_len": 1, "max_image_seq_len": 2},
    "all noise": {"base_shift": 5.0, "max_shift": 5.0},
    "no noise": {"base_shift": 1.0, "max_shift": 0.001, "base_image_seq_len": 1, "max_image_seq_len": 32},
    "backwards": {"time_shift_type": "linear", "base_shift": 1.0, "max_shift": 0.001, "max_image_seq_len": 512},
}


@pytest.mark.parametrize("settings", ODD.values(), ids=ODD)
def test_a_flow_that_is_shifted_out_of_sight_is_damage(settings: dict[str, Any]) -> None:
    with pytest.raises(BdauditError, match=r"a picture of 1,024 tokens by .*; expected 0.001 to 100"):
        flow_of({"use_dynamic_shifting": True} | settings, TOKENS)


def test_the_largest_picture_of_a_stock_flow_is_taken() -> None:
    assert 25 < flow_of({"use_dynamic_shifting": True}, 128 * 128).shift < 26


def test_a_flow_goes_from_noise_to_picture_and_says_both() -> None:
    schedule = Flow(1000.0, 3.0)
    x0, noise, t = drawn(1, 2), drawn(3, 4), torch.tensor([1000.0, 250.0])
    z = schedule.noised(x0, t, noise)
    assert torch.equal(z[0], noise[0])
    assert torch.allclose(schedule.clean(z, t, noise - x0), x0, atol=1e-6)
    assert torch.allclose(schedule.step(z, t, None, noise - x0), x0, atol=1e-6)
    times = schedule.times(20, SPACING)
    assert times[0] == 1000
    assert bool((times.diff() < 0).all())
    assert bool((schedule.times(20, 1.0)[1:] > times[1:]).all())
    assert schedule.same(Flow(1000.0, 1.0))
    assert not schedule.same(Flow(1.0, 3.0))
    assert schedule.unlike(schedule_of("epsilon")) == "it has another kind of noise schedule" == schedule_of("epsilon").unlike(schedule)
