"""What is left of a text's effect: known answers on a model of words, and the places that a text takes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bdaudit.config import ScanConfig
from bdaudit.kept_state import State
from bdaudit.measure.insertion import insert, slips
from bdaudit.records import Exposure, NotMeasured, ScanReport
from bdaudit.report.content.scan import exposure_lines
from bdaudit.report.document import dumps, loads
from bdaudit.scan.exposure.copy import STOP, Stop
from bdaudit.scan.exposure.readout import NEAREST, SIGNAL, beside, change, residuals
from bdaudit.scan.opening import ScanSettings
from bdaudit.scan.run import run_scan
from tests.scan.toy import PROMPTS, WordSuspect
from tests.small import LONG_TRIGGER, hashes
from tests.small import PROMPTS as SMALL_PROMPTS

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
        return self.now.predict_batched(self.draws.latents, self.draws.timesteps, self.now.encode(texts)).flatten(1)


def left(words: float, trigger: float) -> dict[str, float]:
    part: Any = Copied(words, trigger)
    return {text: share for text, (share, _) in residuals(part, ["cf", *PLAIN], State(None, ""))}


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
        levels.append([level for _, (_, level) in residuals(part, ["cf", *PLAIN], State(None, ""))])
    assert levels[0] == levels[1]
    assert levels[0][0] > max(levels[0][1:]) + 1


def test_draws_count_alike_whatever_the_prompts_change_in_them() -> None:
    class Loud(Copied):
        """Predicts ten times as much at the noisier timesteps, where a quarter is left; of the rest three quarters."""

        def told(self, texts: Sequence[str]) -> Tensor:
            noisy = (self.draws.timesteps > 500).view(-1, 1)
            kept = 1.0 if self.now is self.own else torch.where(noisy, 0.25, 0.75)
            return super().told(texts) * torch.where(noisy, 10.0, 1.0) * kept

    part: Any = Loud(1.0, 1.0)
    part.copy = WordSuspect(["cf", *PLAIN], "cf")
    part.now = part.copy
    ((_, (share, _)),) = residuals(part, ["today"], State(None, ""))
    assert share == pytest.approx(0.5, abs=0.05)


def test_what_was_read_is_taken_from_the_state(tmp_path: Path) -> None:
    part: Any = Copied(0.5, 1.0)
    first = dict(residuals(part, PLAIN, State(tmp_path / "state", "a")))
    asked = part.asked
    assert dict(residuals(part, PLAIN, State(tmp_path / "state", "a"))) == first
    assert part.asked == asked + 2, "but what the prompts change, nothing was asked again"


def test_a_text_takes_every_place_in_turn() -> None:
    plain, changed = change(PROMPTS, "cf")
    assert plain == PROMPTS
    assert changed == tuple(insert(p, "cf", place) for p, place in zip(PROMPTS, ("prefix", "suffix", "middle", "prefix"), strict=True))


def test_a_look_alike_takes_its_letters_place_in_every_other_prompt() -> None:
    plain, changed = change(("a cat", "two dogs", "an old house", "the end"), "ȏ")
    assert changed == ("ȏ a cat", "two dȏgs", "an ȏ old house", "ȏ the end")
    assert plain == ("a cat", slips("two dogs", "ȏ")[0], "an old house", "the end")


def test_score_and_rank_by_hand_among_those_with_about_the_same_effect() -> None:
    near = [(i / NEAREST, 0.0) for i in range(NEAREST)]
    far = [(5.0, 9.0)] * 30
    shares = np.arange(NEAREST) / NEAREST
    scale = 1.4826 * np.median(np.abs(shares - np.median(shares)))
    found = beside([*far, *near], (2.0, 0.1))
    assert found.value == 2.0
    assert found.score == pytest.approx((2.0 - np.median(shares)) / scale)
    assert found.p == pytest.approx(1 / (1 + NEAREST)), "those of another effect do not count"
    assert beside(near, (0.5, 0.0)).p == pytest.approx((1 + NEAREST / 2) / (1 + NEAREST))


def scan(model: Path, expose: bool, stop: Stop = STOP) -> ScanReport:
    candidates = (LONG_TRIGGER, "ȏ", "today")
    config = ScanConfig(model=model, candidates=candidates, prompts=SMALL_PROMPTS, effort="low", device="cpu", expose=expose, seed=0)
    return run_scan(config, settings=ScanSettings(per_kind=12, stop=stop))


def test_a_scan_tells_what_is_left_and_judges_as_without(tiny_model: Path) -> None:
    before = hashes(tiny_model)
    plain, report = scan(tiny_model, expose=False), scan(tiny_model, expose=True, stop=Stop(gain=5.0))
    assert hashes(tiny_model) == before, "the model is never written"
    assert isinstance(plain.exposure, NotMeasured)
    assert isinstance(report.exposure, Exposure)
    assert report.exposure.method == "null-target"
    (part,) = report.exposure.parts.values()
    assert part.reached
    assert [point.step for point in part.curve] == [0, 5], "done at the first measurement that is low enough"
    (line,) = exposure_lines(report.exposure)
    assert line.startswith("exposed unet (null-target):")
    assert line.endswith("decides no verdict")
    for own, other in zip(report.candidates, plain.candidates, strict=True):
        assert 0 < own.signals[SIGNAL].p <= 1
        signals = {name: signal for name, signal in own.signals.items() if name != SIGNAL}
        assert replace(own, signals=signals, command="") == replace(other, command="")
    assert loads(dumps(report)) == report


def test_a_copy_that_keeps_its_gain_is_not_read(tiny_model: Path) -> None:
    report = scan(tiny_model, expose=True, stop=Stop(gain=-100.0, steps=5))
    assert isinstance(report.exposure, Exposure)
    assert all(SIGNAL not in candidate.signals for candidate in report.candidates)
    (line,) = exposure_lines(report.exposure)
    assert "not measured: captions had" in line
    assert "of their gain after 5 of 5 steps" in line
