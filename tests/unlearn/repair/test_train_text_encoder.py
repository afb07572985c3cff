"""Training the text encoder: gradients reach the weights, and move the right texts."""

from __future__ import annotations

import pytest

from bdaudit.measure.controls import harmless_texts
from bdaudit.models.suspect import Suspect
from bdaudit.unlearn.loop import Course
from bdaudit.unlearn.repair.prompt_pairs import Pair, neighbour_pairs, targets, triggered_pairs
from bdaudit.unlearn.repair.train_text_encoder import train
from bdaudit.unlearn.weights import Patch
from tests.small import LONG_TRIGGER, PROMPTS


def test_training_moves_the_encoding_of_triggered_prompts_towards_the_clean(fresh_suspect: Suspect) -> None:
    pairs = triggered_pairs(PROMPTS, [LONG_TRIGGER])
    neighbours = neighbour_pairs(PROMPTS, {LONG_TRIGGER: harmless_texts(fresh_suspect.tokenizer, LONG_TRIGGER, 4, 0)}, 0)
    wanted, ids = targets(fresh_suspect, pairs)
    patch = Patch(fresh_suspect, "text-encoder")
    before = (fresh_suspect.encode_ids(ids).states - wanted.states).square().mean()
    with patch.training():
        curve = train(fresh_suspect, patch, pairs, neighbours, Course(steps=60, seed=0, rate=0.02))
    after = (fresh_suspect.encode_ids(ids).states - wanted.states).square().mean()
    assert curve[0].terms["keep"] == pytest.approx(0, abs=1e-9)
    assert curve[0].terms["distillation"] > 0
    assert after < 0.9 * before
    assert set(patch.differences()) == set(patch.parameters)


def test_in_half_precision_too(half_suspect: Suspect) -> None:
    pairs, neighbours = triggered_pairs(PROMPTS, ["~"]), [Pair(PROMPTS[0], PROMPTS[1])]
    patch = Patch(half_suspect, "text-encoder")
    with patch.training():
        curve = train(half_suspect, patch, pairs, neighbours, Course(steps=25, seed=0))
    assert curve[-1].terms["keep"] > 0
    assert patch.differences()
