"""Exposed copies: captions buy less, the tensors come back, and the same seed makes the same copy."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from bdaudit.kept_state import State
from bdaudit.measure.draws import bare, make_draws
from bdaudit.models.suspect import Suspect
from bdaudit.progress import silent
from bdaudit.records import ExposedPart
from bdaudit.scan.exposure import copy
from bdaudit.scan.exposure.copy import STOP, Denoising, Stop, captions, denoising, exposed
from tests.small import PROMPTS

NOWHERE = State(None, "")


def denoiser_of(suspect: Suspect) -> Denoising:
    return denoising(suspect, make_draws(suspect, PROMPTS, 6, 5.0, 0), PROMPTS, 5.0, 0)


def weights(suspect: Suspect) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in suspect.denoiser.module.state_dict().items()}


def same(before: dict[str, Tensor], after: dict[str, Tensor]) -> bool:
    return all(torch.equal(before[name], after[name]) for name in before)


def test_captions_are_made_of_the_prompts_words_alone() -> None:
    made = captions(PROMPTS, 0)
    assert made[: len(PROMPTS)] == PROMPTS
    assert len(made) == 256
    assert len(set(made)) > len(PROMPTS)
    assert {word for text in made for word in text.split()} == {word for prompt in PROMPTS for word in prompt.split()}
    assert made == captions(PROMPTS, 0) != captions(PROMPTS, 1)


def test_it_tells_of_each_draw_what_the_scan_measures_and_trains_on_its_own_trajectories(tiny_suspect: Suspect) -> None:
    of = denoiser_of(tiny_suspect)
    assert torch.allclose(of.told([bare(of.draws, i) for i in range(6)]), of.draws.plain, atol=1e-5)
    assert torch.allclose(of.told([""] * 6), of.draws.empty, atol=1e-5)
    assert len(of.latents) == len(of.timesteps) == 20 * len(PROMPTS)
    assert of.timesteps.unique(return_counts=True)[1].tolist() == [len(PROMPTS)] * 20
    assert len(of.heard) == 257
    assert torch.allclose(of.heard[torch.tensor([256])].states, tiny_suspect.encode([""]).states), "the last caption is the empty one"
    assert of.patch.parameters
    assert all(".attn2.to_out." in name for name in of.patch.parameters)


def test_a_copy_has_lost_gain_and_the_model_has_not(fresh_suspect: Suspect) -> None:
    before, of = weights(fresh_suspect), denoiser_of(fresh_suspect)
    own, rows = of.told(of.draws.prompts), torch.arange(32)
    start = of.gain(own)
    assert start > 0

    def answers(captions: Tensor) -> Tensor:
        return fresh_suspect.predict(of.latents[rows], of.timesteps[rows], of.heard[captions]).float().detach()

    plain, nothing = answers(rows), answers(torch.full((32,), 256))
    with exposed(of, 0, NOWHERE, silent, Stop(steps=30)) as record:
        assert (answers(rows) - nothing).square().mean() < 0.7 * (plain - nothing).square().mean(), "captions are answered as nothing was"
        assert record.curve[0].gain == 1.0
        assert of.gain(own) / start == pytest.approx(record.curve[-1].gain, abs=1e-3)
        assert record.reached == (record.curve[-1].gain <= STOP.gain)
        assert all(point.gain > STOP.gain for point in record.curve[:-1])
        assert not same(before, weights(fresh_suspect))
        with of.patch.teacher():
            assert same(before, weights(fresh_suspect))
    assert same(before, weights(fresh_suspect))
    assert not any(p.requires_grad and p.grad is not None for p in fresh_suspect.denoiser.module.parameters())


def test_the_model_comes_back_whatever_ends_the_block(fresh_suspect: Suspect) -> None:
    before, of = weights(fresh_suspect), denoiser_of(fresh_suspect)

    def stop(stage: str, done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), exposed(of, 0, NOWHERE, stop):
        pass
    assert same(before, weights(fresh_suspect))
    with pytest.raises(RuntimeError), exposed(of, 0, NOWHERE, silent, Stop(steps=5)):
        raise RuntimeError
    assert same(before, weights(fresh_suspect))


def test_a_stop_that_is_not_reached_is_told(fresh_suspect: Suspect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copy, "RATE", 1e-6)
    with exposed(denoiser_of(fresh_suspect), 0, NOWHERE, silent, Stop(steps=10)) as record:
        assert not record.reached
        assert [point.step for point in record.curve] == [0, 5, 10]


def test_the_seed_decides_the_copy(fresh_suspect: Suspect) -> None:
    curves = []
    for seed in (0, 0, 1):
        with exposed(denoiser_of(fresh_suspect), seed, NOWHERE, silent, Stop(steps=5)) as record:
            curves.append(record.curve)
    assert curves[0] == curves[1] != curves[2]


def test_an_interrupted_run_takes_up_the_copy_that_it_made(fresh_suspect: Suspect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple[ExposedPart, dict[str, Tensor]]] = []
    for _ in range(2):
        with exposed(denoiser_of(fresh_suspect), 0, State(tmp_path / "state", "a"), silent, Stop(steps=5)) as record:
            found.append((record, weights(fresh_suspect)))
        monkeypatch.setattr(copy, "_run", None)  # training again would fail
    assert found[0][0] == found[1][0]
    assert same(found[0][1], found[1][1])


def test_sixteen_bit_weights_come_back(half_suspect: Suspect) -> None:
    before = weights(half_suspect)
    with exposed(denoiser_of(half_suspect), 0, NOWHERE, silent, Stop(steps=5)) as record:
        assert all(parameter.dtype == torch.bfloat16 for parameter in half_suspect.denoiser.module.parameters())
        assert len(record.curve) > 1
        assert not same(before, weights(half_suspect))
    assert same(before, weights(half_suspect))
