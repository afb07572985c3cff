"""What a text is compared with: one that means nothing never with words of the prompts."""

from __future__ import annotations

import numpy as np
import pytest

from bdaudit.measure.text_effects import TextEffect
from bdaudit.scan.level import Harmless
from bdaudit.scan.stratum import LEARNED, Stratum, means_nothing, strata_of

FIRST, DRAWS = 4, 8
GROUPS = ((0, 1, 2), (3, 4, 5), (5, 6, 7))
KINDS = ("word", "phrase", "rare", "character", "zero-width", "emoji")
LOUD = 5.0
"""How much more a word of the prompts moves than other controls, as a logarithm."""


def effect(rng: np.random.Generator, loud: float = 0.0, draws: int = DRAWS) -> TextEffect:
    own = rng.normal() + loud

    def by_draw(scale: float = 1.0) -> tuple[float, ...]:
        return tuple((own * scale + 0.3 * rng.normal(size=draws)).tolist())

    return TextEffect(
        by_draw(), by_draw(0.1), by_draw(), tuple(rng.normal(size=draws)), own + 0.3 * rng.normal(), by_draw(0.2), by_draw(0.2)
    )


def first(whole: TextEffect) -> TextEffect:
    names = ("shift", "override", "states", "level")
    return TextEffect(**{name: getattr(whole, name)[:FIRST] for name in names}, common=whole.common)


def controls(each: int = 16, words: int = 24) -> list[Harmless]:
    return [*(Harmless(f"{kind} {i}", kind) for kind in KINDS for i in range(each)), *(Harmless(f"said {i}", "") for i in range(words))]


@pytest.fixture(scope="module")
def strata() -> dict[bool, Stratum]:
    """A world in which words of the prompts are loud, and nothing else is, but for two texts."""
    rng = np.random.default_rng(5)
    whole = {control.text: effect(rng, 0.0 if control.kind else LOUD) for control in controls()}
    whole |= {"quiet": effect(rng, -0.5), "like a word": effect(rng, LOUD), "much more": effect(rng, 4 * LOUD)}
    found = strata_of(controls())
    for stratum in found.values():
        stratum.begin({text: first(one) for text, one in whole.items()}, FIRST)
        stratum.go_on(whole, GROUPS, seed=1)
    return found


def p(strata: dict[bool, Stratum], text: str, kind: str) -> float:
    stratum = strata[means_nothing(kind)]
    return stratum.steps_tier.p(stratum.score(text, kind))


def test_what_means_nothing_is_not_excused_by_words(strata: dict[bool, Stratum]) -> None:
    assert p(strata, "like a word", "emoji") < 1e-3
    assert p(strata, "like a word", "word") > 0.02, "a word may do what words do"
    assert p(strata, "much more", "word") < 1e-3
    assert p(strata, "quiet", "emoji") > 0.2


def test_the_null_of_what_means_nothing_has_no_word_of_the_prompts(strata: dict[bool, Stratum]) -> None:
    assert {control.kind for control in strata[True].controls} == set(KINDS)
    assert {control.kind for control in strata[False].controls} == {*KINDS, ""}
    assert [means_nothing(kind) for kind in ("word", "phrase", "")] == [False] * 3
    assert [means_nothing(kind) for kind in ("rare", "character", "zero-width", "emoji")] == [True] * 4


def test_some_go_on_and_a_sample_of_the_others_with_them(strata: dict[bool, Stratum]) -> None:
    for stratum in strata.values():
        further = stratum.further(seed=1)
        on = {text for text, score in zip(stratum.names, stratum.screen.null.statistics, strict=True) if score >= stratum.goes_on}
        assert len(on) == max(25, int(np.ceil(0.3 * len(stratum.names))))
        assert on <= set(further)
        assert len(further) == len(on) + LEARNED
        assert set(further) != set(stratum.further(seed=2))
        assert stratum.followed.keys() <= on


def test_a_text_that_does_not_stand_out_is_below_all_that_do(strata: dict[bool, Stratum]) -> None:
    for stratum in strata.values():
        assert not stratum.stands_out("quiet", "emoji")
        assert stratum.score("quiet", "emoji") < min(score for score in stratum.steps_tier.scores if score > -1e5)


@pytest.mark.parametrize("kind", ["word", "emoji"])
def test_harmless_texts_of_either_kind_have_a_p_that_is_uniform_or_conservative(kind: str) -> None:
    below = {0.1: 0, 0.02: 0}
    rounds, each = 30, 12
    for seed in range(rounds):
        rng = np.random.default_rng(100 + seed)
        whole = {control.text: effect(rng, 0.0 if control.kind else LOUD) for control in controls()}
        # a harmless word is one of those that a null of words has: a fifth are said by the prompts
        texts = [f"text {i}" for i in range(each)]
        whole |= {text: effect(rng, LOUD if kind == "word" and rng.random() < 0.2 else 0.0) for text in texts}
        stratum = strata_of(controls())[means_nothing(kind)]
        stratum.begin({text: first(one) for text, one in whole.items()}, FIRST)
        stratum.go_on(whole, GROUPS, seed=seed)
        found = [stratum.steps_tier.p(stratum.score(text, kind)) for text in texts]
        below = {level: n + sum(p <= level for p in found) for level, n in below.items()}
    for level, n in below.items():
        assert n <= level * rounds * each + 2.6 * np.sqrt(level * rounds * each), level
