"""The two parts as functions of a caption."""

from __future__ import annotations

import pytest
import torch

from bdaudit.measure.draws import Draws, make_draws
from bdaudit.models.suspect import Suspect
from bdaudit.scan.exposure.parts import Rows, captions, denoiser, encoder, trajectories
from tests.small import PROMPTS


@pytest.fixture(scope="module")
def draws(tiny_suspect: Suspect) -> Draws:
    return make_draws(tiny_suspect, PROMPTS, 6, 5.0, 0)


def test_captions_are_made_of_the_prompts_words_alone() -> None:
    made = captions(PROMPTS, 0)
    assert made[: len(PROMPTS)] == PROMPTS
    assert len(made) == 256
    assert len(set(made)) > len(PROMPTS)
    assert {word for text in made for word in text.split()} == {word for prompt in PROMPTS for word in prompt.split()}
    assert made == captions(PROMPTS, 0) != captions(PROMPTS, 1)


def test_the_denoiser_tells_of_each_draw_what_the_scan_measures(tiny_suspect: Suspect, draws: Draws) -> None:
    part = denoiser(tiny_suspect, draws, PROMPTS, 5.0, 0)
    assert torch.allclose(part.told(draws.prompts), draws.plain[None], atol=1e-5)
    assert torch.allclose(part.told([""] * 6), draws.empty[None], atol=1e-5)


def test_the_denoiser_trains_on_its_own_trajectories(tiny_suspect: Suspect, draws: Draws) -> None:
    part = denoiser(tiny_suspect, draws, PROMPTS, 5.0, 0)
    latents, timesteps = trajectories(tiny_suspect, PROMPTS, 5.0, 0)
    assert len(latents) == len(timesteps) == part.latents == 20 * len(PROMPTS)
    assert timesteps.unique(return_counts=True)[1].tolist() == [len(PROMPTS)] * 20
    rows = Rows(torch.tensor([3]), torch.tensor([part.captions]))
    expected = tiny_suspect.predict(latents[3:4], timesteps[3:4], tiny_suspect.encode([""]))
    assert torch.allclose(part.answer(rows), expected, atol=1e-6), "the last caption is the empty one"


def test_only_the_way_out_of_the_cross_attention_is_changed(tiny_suspect: Suspect, draws: Draws) -> None:
    names = denoiser(tiny_suspect, draws, PROMPTS, 5.0, 0).patch.parameters
    assert names
    assert all(".attn2.to_out." in name for name in names)


def test_the_encoder_is_read_at_its_last_state(tiny_suspect: Suspect, draws: Draws) -> None:
    part = encoder(tiny_suspect, draws, PROMPTS, 0)
    assert part.told(draws.prompts).shape == (1, 6, 8)
    assert torch.equal(part.told(draws.prompts)[0], tiny_suspect.encode(draws.prompts).states[:, -1])
    rows = Rows(torch.tensor([0, 0]), torch.tensor([1, 256]))
    assert torch.allclose(part.answer(rows), tiny_suspect.encode([PROMPTS[1], ""]).states, atol=1e-6)
