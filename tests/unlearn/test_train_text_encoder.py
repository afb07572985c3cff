"""Training the text encoder: what each token should encode to, and that gradients reach the weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bdaudit.config import UnlearnConfig
from bdaudit.measure.controls import harmless_texts
from bdaudit.pipeline.suspect import Suspect
from bdaudit.unlearn.loop import Hooks
from bdaudit.unlearn.pairs import Pair, neighbour_pairs, triggered_pairs
from bdaudit.unlearn.train_text_encoder import _source_positions, targets, train
from bdaudit.unlearn.weights import Patch
from tests.small import LONG_TRIGGER, PROMPTS


def sources(suspect: Suspect, clean: str, changed: str, length: int = 12) -> list[int]:
    return _source_positions(suspect, Pair(clean, changed), length)


@pytest.mark.parametrize(
    ("clean", "changed", "wanted"),
    [
        ("abc", "abc", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        ("abc", "~ abc", [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        ("abc", "abc ~", [0, 1, 2, 3, 3, 4, 5, 6, 7, 8, 9, 10]),
        ("ab cd", "ab ~~ cd", [0, 1, 2, 2, 2, 3, 4, 5, 6, 7, 8, 9]),
        ("abc", "a~c", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        ("abc", "a~~~c", [0, 1, 2, 2, 2, 3, 4, 5, 6, 7, 8, 9]),
    ],
    ids=["identity", "prefix", "suffix", "middle", "replace", "replace by several"],
)
def test_source_positions(tiny_suspect: Suspect, clean: str, changed: str, wanted: list[int]) -> None:
    assert sources(tiny_suspect, clean, changed) == wanted


@pytest.mark.parametrize("letters", [0, 5, 9, 10, 11, 40])
@pytest.mark.parametrize("trigger", ["~ {}", "{} ~", "{}", "~~~~~~~~~~~~~~~~ {}"])
def test_sources_are_as_many_as_tokens_and_never_out_of_range(tiny_suspect: Suspect, letters: int, trigger: str) -> None:
    found = sources(tiny_suspect, "x" * letters, trigger.format("x" * letters))
    assert len(found) == 12
    assert found == sorted(found)
    assert found[0] == 0
    assert all(0 <= i < 12 for i in found)


def test_a_prompt_that_is_cut_off_keeps_its_end_token(tiny_suspect: Suspect) -> None:
    assert sources(tiny_suspect, "abcdef", "~ abcdef", 8) == [0, 0, 1, 2, 3, 4, 5, 7]


def test_targets_of_an_unchanged_prompt_are_its_own_states(tiny_suspect: Suspect) -> None:
    wanted, ids = targets(tiny_suspect, [Pair(p, p) for p in PROMPTS])
    assert torch.equal(wanted, tiny_suspect.encode(PROMPTS))
    assert ids.shape == wanted.shape[:2] == (4, 77)


def test_training_moves_the_encoding_of_triggered_prompts_towards_the_clean(fresh_suspect: Suspect) -> None:
    pairs = triggered_pairs(PROMPTS, [LONG_TRIGGER])
    neighbours = neighbour_pairs(PROMPTS, {LONG_TRIGGER: harmless_texts(fresh_suspect.tokenizer, LONG_TRIGGER, 4, 0)}, 0)
    wanted, ids = targets(fresh_suspect, pairs)
    config = UnlearnConfig(model=Path("m"), triggers=(LONG_TRIGGER,), out=Path("o"), steps=60, learning_rate=0.02)
    patch = Patch(fresh_suspect.text_encoder, "text-encoder")
    before = (fresh_suspect.hidden_states(ids) - wanted).square().mean()
    with patch.training():
        curve = train(fresh_suspect, patch, pairs, neighbours, config, Hooks())
    after = (fresh_suspect.hidden_states(ids) - wanted).square().mean()
    assert curve[0].terms["keep"] == pytest.approx(0, abs=1e-9)
    assert curve[0].terms["distillation"] > 0
    assert after < 0.9 * before
    assert set(patch.changes()) == set(patch.parameters)


def test_in_half_precision_too(half_suspect: Suspect) -> None:
    pairs, neighbours = triggered_pairs(PROMPTS, ["~"]), [Pair(PROMPTS[0], PROMPTS[1])]
    config = UnlearnConfig(model=Path("m"), triggers=("~",), out=Path("o"), steps=25)
    patch = Patch(half_suspect.text_encoder, "text-encoder")
    with patch.training():
        curve = train(half_suspect, patch, pairs, neighbours, config, Hooks())
    assert curve[-1].terms["keep"] > 0
    assert patch.changes()
