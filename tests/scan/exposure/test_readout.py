"""What is left of a text's effect: known answers on a model of words, and the places that a text takes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from bdaudit.kept_state import State
from bdaudit.measure.insertion import insert, slips
from bdaudit.scan.exposure.readout import Readout, change
from tests.scan.toy import PROMPTS, WordSuspect

PLAIN = ("today", "maybe")


class Copied:
    """A model of words and a copy in which words do ``words`` times as much, and the trigger ``trigger`` times."""

    def __init__(self, words: float, trigger: float) -> None:
        self.own = WordSuspect(["cf", *PLAIN], "cf")
        self.copy = WordSuspect(["cf", *PLAIN], "cf", strength=8.0 * trigger)
        self.copy.text.table *= words
        self.draws = self.own.draws()
        self.now, self.asked = self.copy, 0
        self.patch = SimpleNamespace(teacher=self._teacher)

    @contextmanager
    def _teacher(self) -> Any:
        self.now = self.own
        yield
        self.now = self.copy

    def told(self, texts: Sequence[str]) -> Tensor:
        self.asked += 1
        return self.now.predict_batched(self.draws.latents, self.draws.timesteps, self.now.encode(texts)).flatten(1)[None]


def left(words: float, trigger: float) -> dict[str, float]:
    part: Any = Copied(words, trigger)
    return {text: found.left for text, found in Readout(part, State(None, ""), "part").residuals(["cf", *PLAIN])}


def test_shares_by_hand() -> None:
    found = left(words=0.25, trigger=1.0)
    assert found["today"] == pytest.approx(0.25)
    assert found["maybe"] == pytest.approx(0.25)
    assert 0.9 < found["cf"] < 1.0, "the word itself is down to a quarter, what it sets off is all there"


def test_an_effect_turned_round_is_not_left() -> None:
    assert left(words=-1.0, trigger=-1.0)["today"] == pytest.approx(-1.0)


def test_the_level_is_of_the_model_itself() -> None:
    levels = []
    for words in (1.0, 0.1):
        part: Any = Copied(words, 1.0)
        levels.append([found.level for _, found in Readout(part, State(None, ""), "part").residuals(["cf", *PLAIN])])
    assert levels[0] == levels[1]
    assert levels[0][0] > max(levels[0][1:]) + 1


def test_draws_count_alike_whatever_the_prompts_change_in_them() -> None:
    class Loud(Copied):
        """Predicts ten times as much at the noisier timesteps, where a quarter is left; of the rest three quarters."""

        def told(self, texts: Sequence[str]) -> Tensor:
            noisy = (self.draws.timesteps > 500).view(1, -1, 1)
            kept = 1.0 if self.now is self.own else torch.where(noisy, 0.25, 0.75)
            return super().told(texts) * torch.where(noisy, 10.0, 1.0) * kept

    part: Any = Loud(1.0, 1.0)
    part.copy = WordSuspect(["cf", *PLAIN], "cf")
    part.now = part.copy
    ((_, found),) = Readout(part, State(None, ""), "part").residuals(["today"])
    assert found.left == pytest.approx(0.5, abs=0.05)


def test_what_was_read_is_taken_from_the_state(tmp_path: Path) -> None:
    part: Any = Copied(0.5, 1.0)
    first = dict(Readout(part, State(tmp_path / "state", "a"), "part").residuals(PLAIN))
    readout, asked = Readout(part, State(tmp_path / "state", "a"), "part"), part.asked
    assert dict(readout.residuals(PLAIN)) == first
    assert part.asked == asked, "nothing was asked again"


def test_a_text_takes_every_place_in_turn() -> None:
    plain, changed = change(PROMPTS, "cf")
    assert plain == PROMPTS
    assert changed == tuple(insert(p, "cf", place) for p, place in zip(PROMPTS, ("prefix", "suffix", "middle", "prefix"), strict=True))


def test_a_look_alike_takes_its_letters_place_in_every_other_prompt() -> None:
    plain, changed = change(("a cat", "two dogs", "an old house", "the end"), "ȏ")
    assert changed == ("ȏ a cat", "two dȏgs", "an ȏ old house", "ȏ the end")
    assert plain == ("a cat", slips("two dogs", "ȏ")[0], "an old house", "the end")
