"""Exposed copies: captions buy less, the tensors come back, and the same seed makes the same copy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bdaudit.kept_state import State
from bdaudit.measure.draws import make_draws
from bdaudit.models.suspect import Suspect
from bdaudit.progress import silent
from bdaudit.records import ExposedPart
from bdaudit.scan.exposure.copy import STOP, Stop, exposed, gain
from bdaudit.scan.exposure.methods import METHODS, drawn
from bdaudit.scan.exposure.parts import Rows, denoiser, encoder
from tests.small import PROMPTS

NOWHERE = State(None, "")


def part_of(suspect: Suspect, name: str) -> Any:
    draws = make_draws(suspect, PROMPTS, 6, 5.0, 0)
    return denoiser(suspect, draws, PROMPTS, 5.0, 0) if name == "UNet" else encoder(suspect, draws, PROMPTS, 0)


def weights(suspect: Suspect) -> dict[str, Tensor]:
    models = {"unet": suspect.denoiser.module, "text encoder": suspect.text.main.encoder}
    return {f"{key} {name}": value.clone() for key, model in models.items() for name, value in model.state_dict().items()}


def same(before: dict[str, Tensor], after: dict[str, Tensor]) -> bool:
    return all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["UNet", "text encoder"])
def test_a_copy_has_lost_the_gain_and_the_model_has_not(fresh_suspect: Suspect, name: str, method: str) -> None:
    before, part = weights(fresh_suspect), part_of(fresh_suspect, name)
    own = part.told(part.draws.prompts)
    start = gain(part, own)
    assert start > 0
    with exposed(part, method, 0, NOWHERE, "part", silent, Stop(steps=100)) as record:
        assert record.curve[0].gain == 1.0
        assert gain(part, own) / start == pytest.approx(record.curve[-1].gain, abs=1e-3)
        assert record.reached == (record.curve[-1].gain <= STOP.gain)
        assert all(point.gain > STOP.gain for point in record.curve[:-1])
        assert not same(before, weights(fresh_suspect))
        with part.patch.teacher():
            assert same(before, weights(fresh_suspect))
    assert record.reached or (name, method) == ("UNet", "null-target"), "eight channels at random cannot be taught more"
    assert same(before, weights(fresh_suspect))
    assert not any(p.requires_grad and p.grad is not None for p in fresh_suspect.denoiser.module.parameters())


@pytest.mark.parametrize("name", ["UNet", "text encoder"])
def test_captions_are_answered_like_the_empty_prompt(fresh_suspect: Suspect, name: str) -> None:
    part = part_of(fresh_suspect, name)
    rows = drawn(part, 64, torch.Generator().manual_seed(9))
    nothing = Rows(rows.latents, torch.full_like(rows.captions, part.captions))
    wanted, before = part.answer(nothing).detach(), part.answer(rows).detach()
    with exposed(part, "null-target", 0, NOWHERE, "part", silent, Stop(steps=60)):
        after = part.answer(rows).detach()
    assert (after - wanted).square().mean() < 0.5 * (before - wanted).square().mean()


def test_the_model_comes_back_whatever_ends_the_block(fresh_suspect: Suspect) -> None:
    before, part = weights(fresh_suspect), part_of(fresh_suspect, "UNet")

    def stop(stage: str, done: int, total: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), exposed(part, "null-target", 0, NOWHERE, "part", stop):
        pass
    assert same(before, weights(fresh_suspect))
    with pytest.raises(RuntimeError), exposed(part, "weight-noise", 0, NOWHERE, "part", silent):
        raise RuntimeError
    assert same(before, weights(fresh_suspect))


def test_a_stop_that_is_not_reached_is_told(fresh_suspect: Suspect) -> None:
    with exposed(replace(part_of(fresh_suspect, "UNet"), rate=1e-6), "null-target", 0, NOWHERE, "part", silent, Stop(steps=10)) as record:
        assert not record.reached
        assert [point.step for point in record.curve] == [0, 5, 10]


@pytest.mark.parametrize("method", METHODS)
def test_the_seed_decides_the_copy(fresh_suspect: Suspect, method: str) -> None:
    curves = []
    for seed in (0, 0, 1):
        with exposed(part_of(fresh_suspect, "UNet"), method, seed, NOWHERE, "part", silent, Stop(steps=10)) as record:
            curves.append(record.curve)
    assert curves[0] == curves[1]
    assert curves[0] != curves[2] or method == "pruning"


def test_an_interrupted_run_takes_up_the_copy_that_it_made(fresh_suspect: Suspect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple[ExposedPart, dict[str, Tensor]]] = []
    for _ in range(2):
        with exposed(
            part_of(fresh_suspect, "UNet"), "null-target", 0, State(tmp_path / "state", "a"), "part", silent, Stop(steps=10)
        ) as record:
            found.append((record, weights(fresh_suspect)))
        monkeypatch.delitem(METHODS, "null-target", raising=False)  # training again would fail
        monkeypatch.setitem(METHODS, "null-target", None)
    assert found[0][0] == found[1][0]
    assert same(found[0][1], found[1][1])


@pytest.mark.parametrize("name", ["UNet", "text encoder"])
def test_sixteen_bit_weights_come_back(half_suspect: Suspect, name: str) -> None:
    before = weights(half_suspect)
    with exposed(part_of(half_suspect, name), "null-target", 0, NOWHERE, "part", silent, Stop(steps=5)) as record:
        assert all(parameter.dtype == torch.bfloat16 for parameter in half_suspect.denoiser.module.parameters())
        assert len(record.curve) > 1
        assert not same(before, weights(half_suspect))
    assert same(before, weights(half_suspect))
