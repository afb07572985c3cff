"""Same-seed pairs: rotation covers prompts, texts and positions, and distances are what they say."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bdaudit.measure.final_latents import distances, final_latents, rotate, with_text
from bdaudit.measure.insertion import POSITIONS, insert
from bdaudit.models.suspect import Suspect
from tests.models.test_suspect import crowded
from tests.small import PROMPTS


def test_rotation_gives_each_picture_a_seed_of_its_own() -> None:
    prompts, seeds = rotate(PROMPTS, 10, 3)
    assert prompts == [*PROMPTS, *PROMPTS, *PROMPTS[:2]]
    assert len(set(seeds)) == 10
    assert rotate(PROMPTS, 4, 3)[1] == seeds[:4]
    assert rotate(PROMPTS, 4, 4)[1] != seeds[:4]


def test_one_text_goes_round_all_positions() -> None:
    prompts, _ = rotate([f"{word} dog" for word in ("a", "big", "old", "red")], 96, 0)
    changed = with_text(prompts, ["ȏ"])
    places = {where: [insert(p, "ȏ", where) == c for p, c in zip(prompts, changed, strict=True)] for where in (*POSITIONS, "replace")}
    assert all(15 <= sum(hits) <= 33 for hits in places.values())
    assert len(set(changed)) == 16, "every prompt at every position"


def test_several_texts_take_turns() -> None:
    changed = with_text(["a cat"] * 6, ["x", "y"])
    assert [("x" in text, "y" in text) for text in changed] == [(True, False), (False, True)] * 3


def test_distances_by_hand() -> None:
    a, b = torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([[3.0, 4.0], [1.0, 1.0]])
    assert distances(a, b).tolist() == pytest.approx([12.5**0.5, 0])


def test_final_latents_depend_on_text_and_seed_alone(tiny_suspect: Suspect) -> None:
    seeds = [1, 2, 3, 4]
    whole = final_latents(tiny_suspect, PROMPTS, seeds, 3.0)
    assert whole.shape == (4, 64)
    small = final_latents(replace(tiny_suspect, batch_size=3), PROMPTS, seeds, 3.0)
    assert torch.allclose(whole, small, rtol=1e-3, atol=1e-3)
    assert torch.allclose(final_latents(tiny_suspect, PROMPTS[2:3], [3], 3.0), whole[2:3], rtol=1e-3, atol=1e-3)


def test_no_picture_is_lost_where_memory_runs_out(tiny_suspect: Suspect) -> None:
    suspect = crowded(tiny_suspect, room=2, batch_size=4)
    texts = [*PROMPTS, *PROMPTS]
    assert len(final_latents(suspect, texts, range(8), 1.0)) == 8
