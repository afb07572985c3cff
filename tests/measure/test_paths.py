"""Paths with and without a text: the same noise, the text alone makes the difference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from bdaudit.measure.draws import bare, make_draws, put
from bdaudit.measure.insertion import item_seed
from bdaudit.measure.paths import make_paths, path_effects
from bdaudit.models.sample import denoise

if TYPE_CHECKING:
    from bdaudit.models.suspect import Suspect

POOL = ("a photo of a dog", "a red house", "an old man by the sea", "a boat")


def test_the_shift_is_of_the_end_latents_in_units_of_what_the_prompt_changes(tiny_suspect: Suspect) -> None:
    draws = make_draws(tiny_suspect, POOL, 4, 5.0, seed=0)
    paths = make_paths(tiny_suspect, draws, 3, seed=0)
    (effect,) = path_effects(tiny_suspect, paths, ["zqx"])
    for place, shift in enumerate(effect.shift):
        noise = tiny_suspect.noise([item_seed(0, "path", place)])
        changed = put(draws, place, "zqx")
        heard = (tiny_suspect.encode([text]) for text in (changed, bare(draws, place), ""))
        ends = [denoise(tiny_suspect, h, noise, steps=3, guidance_scale=1.0, spacing=1.0).final.float() for h in heard]
        wanted = ((ends[0] - ends[1]).square().mean() / (ends[1] - ends[2]).square().mean()).log()
        assert shift == pytest.approx(float(wanted), abs=1e-3)


def test_the_texts_beside_it_do_not_matter(tiny_suspect: Suspect) -> None:
    draws = make_draws(tiny_suspect, POOL, 4, 5.0, seed=0)
    paths = make_paths(tiny_suspect, draws, 2, seed=0)
    alone = path_effects(tiny_suspect, paths, ["dog"])[0]
    both = path_effects(tiny_suspect, paths, ["cat", "dog"])[1]
    assert alone.shift == pytest.approx(both.shift, abs=1e-4)
    assert alone.common == pytest.approx(both.common, abs=1e-4)
    assert torch.isfinite(torch.tensor(alone.shift)).all()
