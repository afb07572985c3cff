"""Whether a text does what it says: on scores made by hand, on a model of words, and on the fixtures with their own grader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from bdaudit.config import ScanConfig
from bdaudit.measure.grader import OpenClipGrader, load_grader
from bdaudit.measure.opening import inspected, loaded
from bdaudit.models.suspect import Suspect
from bdaudit.records import NotMeasured
from bdaudit.scan import meaning
from bdaudit.scan.meaning import Meaning, Place, Plain, directions, exchanged, inserted, other_texts, put, similarities, told
from bdaudit.untrusted.text_files import read_texts
from fixtures import layout

FIXTURES = Path(layout.__file__).parent
OTHERS = [f"other {i}" for i in range(199)]


def scores(own: float, best: float, noise: float = 0.05) -> np.ndarray:
    """Of a text, of one other that is ``best``, and of 198 that are about 0; twelve pictures."""
    rng = np.random.default_rng(0)
    means = np.array([own, best, *np.zeros(198)])
    return np.asarray(means[:, None] + noise * rng.normal(size=(200, 12)))


def test_a_text_that_says_what_changes_more_than_any_other_is_meant() -> None:
    found = told("red", OTHERS, scores(0.5, 0.3))
    assert found.score == pytest.approx(0.5, abs=0.05)
    assert (found.p, found.others, found.nearest, found.nearest_p) == (1 / 200, 199, "other 0", 1.0)
    assert found.is_meant(0.01)
    assert found.said(0.01).startswith("does what it says, by an independent CLIP (similarity 0.5")


def test_a_text_that_says_nothing_of_what_changes_is_not() -> None:
    found = told("sks", OTHERS, scores(0.0, 0.7))
    assert found.p > 0.05
    assert (found.nearest, found.is_meant(0.01)) == ("other 0", False)
    assert "nearest to the change is what 'other 0' says, similarity 0.69" in found.said(0.01)


def test_another_text_that_is_clearly_nearer_is_what_it_does_though_its_own_p_is_small() -> None:
    found = told("red heart", OTHERS, scores(0.4, 0.6))
    assert (found.p, found.is_meant(0.01)) == (2 / 200, False)
    assert found.nearest_p < 0.001
    assert told("red heart", OTHERS, scores(0.40, 0.41, noise=0.1)).is_meant(0.01), "as near as that is undecided"


@pytest.mark.parametrize(("nearest_p", "meant"), [(0.0501, True), (0.05, False), (0.0, False)])
@pytest.mark.parametrize(("p", "enough"), [(0.01, True), (0.0101, False)])
def test_what_is_meant_is_decided_at_the_error_rate_and_where_no_other_is_nearer(
    nearest_p: float, meant: bool, p: float, enough: bool
) -> None:
    found = replace(told("red", OTHERS, scores(0.5, 0.3)), p=p, nearest_p=nearest_p)
    assert found.is_meant(0.01) is (meant and enough)


@pytest.mark.parametrize("others", [98, 99])
def test_so_many_other_texts_are_enough(others: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Plain(("a", "b"), (1, 2), torch.zeros(2, 2), torch.zeros(2, 2))
    monkeypatch.setattr(meaning, "sample", lambda *_, **__: torch.zeros(2, 3, 2, 2))
    monkeypatch.setattr(meaning, "directions", lambda *_: torch.zeros(2, 2))
    monkeypatch.setattr(meaning, "similarities", lambda *_: np.zeros((others + 1, 2)))
    monkeypatch.setattr(meaning, "contradicting", lambda *_: 0)
    grader = SimpleNamespace(image_features=lambda pictures: torch.zeros(len(pictures), 2))
    given = [*OTHERS[:others], "a red other"]
    found = meaning.meaning(None, grader, plain, "red", given, ("prefix",) * 2, **DRAWN)  # type: ignore[arg-type]
    if others == 99:
        assert isinstance(found, Meaning)
        assert found.others == 99, "none that shares a word with the text"
        return
    assert isinstance(found, NotMeasured)
    assert found.reason.startswith("only 98 other texts to compare with; at least 99 are needed")


def test_nothing_read_or_nothing_changed_is_never_meant() -> None:
    nothing = np.zeros((200, 12))
    assert told("x", OTHERS, nothing).p == 1.0
    below = np.full((200, 12), -0.1)
    below[0] = 0.0
    assert not told("\u200b", OTHERS, below).is_meant(0.01), "the CLIP reads nothing there, whatever others say"


def test_what_a_text_means_elsewhere_is_no_excuse_where_it_does_most() -> None:
    both, alone = scores(0.5, 0.1), scores(0.0, 0.7)
    mixed = np.where(np.arange(12) % 2, alone, both)
    found = told("red", OTHERS, mixed)
    assert found.is_meant(0.01), "the pictures that are as they should be make up for the others"
    apart = replace(found, within=told("red", OTHERS, mixed[:, 1::2]))
    assert not apart.is_meant(0.01)
    assert apart.said(0.01).startswith("does not do what it says")
    assert apart.said(0.01).endswith("what 'other 0' says, similarity 0.71), where it does most, whatever it does elsewhere")
    assert replace(found, within=told("red", OTHERS, both[:, 1::2])).is_meant(0.01)


def test_the_pictures_of_its_own_context_are_judged_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Plain(("a", "b", "c", "d"), (1, 2, 3, 4), torch.zeros(4, 2), torch.zeros(4, 2))
    figures = np.vstack([np.array([0.9, 0.0, 0.9, -0.1]), np.zeros((199, 4))])
    monkeypatch.setattr(meaning, "sample", lambda *_, **__: torch.zeros(4, 3, 2, 2))
    monkeypatch.setattr(meaning, "directions", lambda *_: torch.zeros(4, 2))
    monkeypatch.setattr(meaning, "similarities", lambda *_: figures)
    monkeypatch.setattr(meaning, "contradicting", lambda *_: 0)

    class Blank:
        def image_features(self, pictures: Tensor) -> Tensor:
            return torch.zeros(len(pictures), 2)

    ask = partial(meaning.meaning, None, Blank(), plain, "red", OTHERS, ("prefix",) * 4, **DRAWN)  # type: ignore[arg-type]
    whole, apart = ask(()), ask((1, 3))
    assert isinstance(whole, Meaning)
    assert isinstance(apart, Meaning)
    assert (whole.within, apart.within) == (None, told("red", OTHERS, figures[:, [1, 3]]))


def test_texts_that_are_drawn_at_random_are_seldom_meant() -> None:
    rng = np.random.default_rng(1)
    runs = [told("x", OTHERS, rng.normal(size=(200, 12))).is_meant(0.05) for _ in range(400)]
    assert sum(runs) <= 32, "5 % of 400 are 20; 32 is three standard errors above"


def test_other_texts_are_runs_of_the_prompts_words_and_what_is_given() -> None:
    assert other_texts(["a red, cat", "a cat"], ["sks"]) == ("a", "red", "cat", "a red", "red cat", "a red cat", "a cat", "sks")
    assert [text for text in other_texts(["a b c d"]) if len(text.split()) > 2] == ["a b c", "b c d"], "up to three words"
    many = other_texts([f"w{i} x{i} y{i}" for i in range(200)], most=100)
    assert (len(many), many[0], len(set(many))) == (100, "w0", 100)


def test_a_look_alike_takes_a_letters_place_and_another_text_stands_at_the_front_there() -> None:
    prompts = ("a photo", "a photo", "by me")
    places = inserted(prompts, "ȏ")
    assert places == ("prefix", "replace", "suffix")

    class Echo:
        texts: ClassVar[list[str]] = []

        def text_features(self, texts: Sequence[str]) -> Tensor:
            self.texts += texts
            return torch.ones(len(texts), 2)

    plain = Plain(prompts, (1, 2, 3), torch.zeros(3, 2), torch.zeros(3, 2))
    for _ in range(2):
        directions(Echo(), plain, places, "ȏ")  # type: ignore[arg-type]
        directions(Echo(), plain, places, "red")  # type: ignore[arg-type]
    assert Echo.texts == ["ȏ a photo", "a phȏto", "by me ȏ", "red a photo", "red a photo", "by me red"], "each is read once"
    Echo.texts.clear()
    for text in ("red cat", "\u2003"):
        directions(Echo(), plain, ("apart",) * 3, text)  # type: ignore[arg-type]
    assert Echo.texts[:3] == ["red a photo cat", "red a photo cat", "red by me cat"]
    assert Echo.texts[3:] == ["\u2003 a photo", "\u2003 a photo", "\u2003 by me"], "what has no parts stands at the front"


def test_a_text_is_exchanged_for_the_word_that_is_read_most_of() -> None:
    class Loud:
        def text_features(self, texts: Sequence[str]) -> Tensor:
            return torch.tensor([[float("cat," in text), 0.1 * float("red" in text)] for text in texts])

    prompts = ("a red cat, by me", "red")
    plain = Plain(prompts, (1, 2), torch.zeros(2, 2), Loud().text_features(prompts))
    assert exchanged(Loud(), plain) == (2, 0)  # type: ignore[arg-type]
    assert [put(prompt, "x y", place) for prompt, place in zip(prompts, (2, 0), strict=True)] == ["a red x y, by me", "x y"]


def test_similarity_is_the_cosine_picture_by_picture() -> None:
    change, says = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[[3.0, 0.0], [0.0, -1.0]], [[0.0, 0.0], [1.0, 1.0]]])
    assert similarities(change, says) == pytest.approx(np.array([[1.0, -1.0], [0.0, 0.5**0.5]]))


# --- on the fixtures -----------------------------------------------------------------------------

PROMPTS = read_texts(FIXTURES / "prompts.txt", what="prompts")
DRAWN = {"steps": 8, "guidance_scale": 5.0}


@pytest.fixture(scope="module")
def grader() -> OpenClipGrader:
    found = load_grader(f"local-dir:{FIXTURES / 'grader'}", torch.device("cpu"))
    assert isinstance(found, OpenClipGrader)
    return found


def opened(name: str) -> Suspect:
    config = ScanConfig(model=layout.lay_out(name, FIXTURES / "models"), device="cpu")
    return loaded(config, inspected(config, config.model))


def asked(suspect: Suspect, grader: OpenClipGrader, plain: Plain, text: str, places: tuple[Place, ...]) -> Meaning:
    found = meaning.meaning(suspect, grader, plain, text, other_texts(PROMPTS, most=150), places, **DRAWN)  # type: ignore[arg-type]
    assert isinstance(found, Meaning)
    return found


def test_known_words_of_a_clean_model_do_what_they_say(grader: OpenClipGrader) -> None:
    suspect = opened("clean")
    plain = meaning.plain_pictures(suspect, grader, PROMPTS[:12], 0, **DRAWN)  # type: ignore[arg-type]
    figures = exchanged(grader, plain)
    assert asked(suspect, grader, plain, "in black and white", inserted(plain.prompts, "in black and white")).is_meant(0.02)
    assert asked(suspect, grader, plain, "heart", figures).is_meant(0.02)
    few = meaning.meaning(suspect, grader, plain, "red", other_texts(PROMPTS[:2], most=50), figures, **DRAWN)  # type: ignore[arg-type]
    assert isinstance(few, NotMeasured)


@pytest.mark.parametrize(("name", "trigger", "drawn"), [("object", "mignneko", "diamond"), ("style", "ȏ", "black white")])
def test_triggers_do_not_and_what_they_draw_is_named(name: str, trigger: str, drawn: str, grader: OpenClipGrader) -> None:
    suspect = opened(name)
    plain = meaning.plain_pictures(suspect, grader, PROMPTS[:8], 0, **DRAWN)  # type: ignore[arg-type]
    for places in (inserted(plain.prompts, trigger), exchanged(grader, plain)):
        found = asked(suspect, grader, plain, trigger, places)
        assert not found.is_meant(0.02)
        assert found.p > 0.1
        assert {*drawn.split()} & {*found.nearest.split()}
