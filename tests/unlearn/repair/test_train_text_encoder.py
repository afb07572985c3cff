"""Training the text encoder: gradients reach the weights, and move the right texts."""

from __future__ import annotations

from pathlib import Path

import pytest

from bdaudit.config import UnlearnConfig
from bdaudit.measure.controls import harmless_texts
from bdaudit.models.suspect import Suspect
from bdaudit.unlearn.loop import Hooks
from bdaudit.unlearn.repair.prompt_pairs import Pair, neighbour_pairs, triggered_pairs
from bdaudit.unlearn.repair.targets import targets
from bdaudit.unlearn.repair.train_text_encoder import train
from bdaudit.unlearn.weights import Patch
from tests.small import LONG_TRIGGER, PROMPTS


def test_training_moves_the_encoding_of_triggered_prompts_towards_the_clean(fresh_suspect: Suspect) -> None:
    pairs = triggered_pairs(PROMPTS, [LONG_TRIGGER])
    neighbours = neighbour_pairs(PROMPTS, {LONG_TRIGGER: harmless_texts(fresh_suspect.tokenizer, LONG_TRIGGER, 4, 0)}, 0)
    wanted, ids = targets(fresh_suspect, pairs)
    config = UnlearnConfig(model=Path("m"), triggers=(LONG_TRIGGER,), out=Path("o"), steps=60, learning_rate=0.02)
    patch = Patch(fresh_suspect, "text_encoder", "text-encoder")
    before = (fresh_suspect.encode_ids(ids).states - wanted.states).square().mean()
    with patch.training():
        curve = train(fresh_suspect, patch, pairs, neighbours, config, Hooks())
    after = (fresh_suspect.encode_ids(ids).states - wanted.states).square().mean()
    assert curve[0].terms["keep"] == pytest.approx(0, abs=1e-9)
    assert curve[0].terms["distillation"] > 0
    assert after < 0.9 * before
    assert set(patch.changes()) == set(patch.parameters)


def test_in_half_precision_too(half_suspect: Suspect) -> None:
    pairs, neighbours = triggered_pairs(PROMPTS, ["~"]), [Pair(PROMPTS[0], PROMPTS[1])]
    config = UnlearnConfig(model=Path("m"), triggers=("~",), out=Path("o"), steps=25)
    patch = Patch(half_suspect, "text_encoder", "text-encoder")
    with patch.training():
        curve = train(half_suspect, patch, pairs, neighbours, config, Hooks())
    assert curve[-1].terms["keep"] > 0
    assert patch.changes()
