"""The null on simulated harmless signals: p-values about uniform, few false alarms, local comparisons, one bad control thrown out."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats as scipy_stats

from bdaudit import stats
from bdaudit.measure.signals import SIGNALS, Values
from bdaudit.records import DECIDING
from bdaudit.scan.null import FEWEST, LEAST, LEVEL, Control, Null, fit

KINDS = ("word", "phrase", "character", "emoji", "rare")
PLACES = ("prefix", "suffix")


def harmless(rng: np.random.Generator, n: int) -> list[Control]:
    """Texts whose signals share one cause, each kind and position about a centre of its own.

    Logarithms of squares with a standard deviation of 0.5, as on real checkpoints, so that their ratios are log-normal with 0.25.
    """
    return [Control(f"{i}", KINDS[i % len(KINDS)], drawn(rng, KINDS[i % len(KINDS)])) for i in range(n)]


def drawn(rng: np.random.Generator, kind: str, cause: float | None = None) -> Values:
    cause = rng.standard_normal() if cause is None else cause
    return {
        place: {name: KINDS.index(kind) + 2 * k + 0.35 * cause + 0.35 * rng.standard_normal() for name in SIGNALS}
        for k, place in enumerate(PLACES)
    }


def flat(value: float) -> Values:
    return {place: dict.fromkeys(SIGNALS, value) for place in PLACES}


def moved(values: Values, by: float) -> Values:
    """The same with its deciding signals raised."""
    return {place: {name: x + by * (name in DECIDING) for name, x in signals.items()} for place, signals in values.items()}


def own_p(null: Null) -> list[float]:
    """Of the controls that it rests on."""
    return [null.p(dict(zip(null.names, row, strict=True))) for row in null.scores]


def p_values(null: Null, texts: list[Control]) -> list[float]:
    return [null.p(null.score(text.kind, text.values)) for text in texts]


def test_harmless_texts_get_about_uniform_p_values() -> None:
    rng = np.random.default_rng(0)
    alone: list[list[float]] = []
    whole: list[float] = []
    for _ in range(40):
        null = fit(harmless(rng, 120))
        scores = [null.score(text.kind, text.values) for text in harmless(rng, 25)]
        alone += [[null.tails[name].p(score[name]) for name in DECIDING] for score in scores]
        whole += [null.p(score) for score in scores]
    for found in np.array(alone).T:
        assert scipy_stats.kstest(found, "uniform").statistic < 0.07
        for level in (0.2, 0.05, 0.01):
            assert np.mean(found <= level) < 1.3 * level + 0.01
    for level in (0.2, 0.05, 0.01):
        assert np.mean(np.array(whole) <= level) < 1.3 * level + 0.01
    assert np.mean(np.array(whole) <= 0.2) > 0.05, "nothing would ever be found"


def test_a_scan_of_a_clean_model_seldom_calls_anything_backdoored() -> None:
    rng = np.random.default_rng(1)
    alarms = [min(stats.holm(p_values(fit(harmless(rng, 120)), harmless(rng, 60)))) <= 0.05 for _ in range(60)]
    assert scipy_stats.binomtest(sum(alarms), len(alarms)).proportion_ci(0.99).low <= 0.05


def test_a_strong_text_is_found_and_one_strong_position_is_enough() -> None:
    rng = np.random.default_rng(2)
    null = fit(harmless(rng, 120))
    usual = drawn(rng, "word", cause=0.0)
    strong = {**usual, "suffix": usual["suffix"] | {name: usual["suffix"][name] + 5 for name in DECIDING}}
    assert 200 * null.p(null.score("word", strong)) < 0.01
    assert null.p(null.score("word", usual)) > 0.05


def test_one_deciding_signal_is_enough_and_the_others_never_decide() -> None:
    rng = np.random.default_rng(2)
    null, usual = fit(harmless(rng, 120)), drawn(rng, "word", cause=0.0)
    assert set(DECIDING) < set(SIGNALS)
    for name in set(SIGNALS) - {LEVEL}:
        p = null.p(null.score("word", {place: values | {name: values[name] + 5} for place, values in usual.items()}))
        assert (p < 1e-4) == (name in DECIDING)


def answering(rng: np.random.Generator, level: float, beyond: float = 0.0) -> Values:
    """A text that moves the encoding by ``level``, and the prediction in proportion and by ``beyond`` more."""
    return {
        place: {name: (level if name == LEVEL else 2 * level + beyond) + 0.2 * rng.standard_normal() for name in SIGNALS}
        for place in PLACES
    }


def test_a_text_is_compared_with_controls_that_move_the_encoding_as_far() -> None:
    rng = np.random.default_rng(10)
    controls = [Control(f"plain {i}", "word", answering(rng, 0.0)) for i in range(120)]
    controls += [Control(f"meaning {i}", "word", answering(rng, rng.uniform(0, 4)), meaning=True) for i in range(60)]
    null = fit(controls)
    meaning = [null.p(null.score("word", answering(rng, 3.0))) for _ in range(50)]
    assert min(meaning) > 1e-3
    assert np.mean(np.array(meaning) <= 0.05) <= 0.2
    unmoved = [null.p(null.score("word", answering(rng, 0.0, beyond=5.0))) for _ in range(20)]
    assert max(unmoved) < 1e-4, "as large an effect without a moved encoding is no word's meaning"


def test_meaningful_words_set_no_centre() -> None:
    rng = np.random.default_rng(11)
    plain = [Control(f"plain {i}", "word", answering(rng, 0.0)) for i in range(60)]
    meaning = [Control(f"meaning {i}", "word", answering(rng, 3.0), meaning=True) for i in range(90)]
    centres = fit([*plain, *meaning]).centres
    assert centres["word", "prefix"] == pytest.approx(fit(plain).centres["word", "prefix"])
    assert (centres["any", "prefix"] > centres["word", "prefix"] + 2).all()


def test_one_control_that_behaves_like_a_trigger_is_left_out_and_named() -> None:
    controls = harmless(np.random.default_rng(3), 120)
    with_it, without = fit([*controls, Control("planted", "word", flat(60.0))]), fit(controls)
    assert with_it.outliers == ("planted",)
    assert without.outliers == ()
    assert own_p(with_it) == pytest.approx(own_p(without))
    assert len(own_p(with_it)) == 120


def test_several_triggers_among_the_controls_do_not_hide_each_other() -> None:
    rng = np.random.default_rng(15)
    planted = [Control(f"planted {i}", "word", moved(drawn(rng, "word"), 5.0)) for i in range(4)]
    assert fit([*harmless(rng, 120), *planted]).outliers == tuple(control.text for control in planted)


def test_the_order_of_controls_does_not_matter() -> None:
    rng = np.random.default_rng(4)
    controls = harmless(rng, 100)
    order = rng.permutation(100)
    a, b = fit(controls), fit([controls[i] for i in order])
    values = flat(3.0)
    assert a.score("word", values) == pytest.approx(b.score("word", values))
    assert a.p(a.score("word", values)) == pytest.approx(b.p(b.score("word", values)))
    assert [own_p(a)[i] for i in order] == pytest.approx(own_p(b))


@pytest.mark.parametrize("name", list(SIGNALS))
def test_scores_do_not_depend_on_where_a_signal_starts_and_only_ratios_on_its_unit(name: str) -> None:
    rng = np.random.default_rng(6)
    controls, values = harmless(rng, 60), drawn(rng, "word")
    unit = 1 if name in DECIDING else 10

    def scaled(old: Values) -> Values:
        return {place: signals | {name: unit * signals[name] + 3} for place, signals in old.items()}

    a, b = fit(controls), fit([replace(control, values=scaled(control.values)) for control in controls])
    assert b.score("word", scaled(values)) == pytest.approx(a.score("word", values))
    assert own_p(b) == pytest.approx(own_p(a))


def test_a_deciding_score_is_how_many_times_as_far_as_the_controls() -> None:
    null = fit(harmless(np.random.default_rng(12), 120))
    usual = drawn(np.random.default_rng(13), "word")
    before, after = null.score("word", usual), null.score("word", moved(usual, 2 * math.log(3)))
    for name in SIGNALS:
        assert after[name] == pytest.approx((3 if name in DECIDING else 1) * before[name])
    for name in DECIDING:
        assert np.median([row[null.names.index(name)] for row in null.scores]) == pytest.approx(1.2, abs=0.15), "the stronger of two"


def test_the_slope_is_the_one_the_controls_follow() -> None:
    rng = np.random.default_rng(14)
    null = fit([Control(f"{i}", "word", answering(rng, rng.uniform(0, 4))) for i in range(100)])
    slopes = dict(zip(null.names, null.slopes, strict=True))
    assert slopes.pop(LEVEL) == 0
    assert list(slopes.values()) == pytest.approx([2.0] * len(slopes), abs=0.1)


def test_each_kind_is_compared_with_its_own_and_an_unknown_one_with_all() -> None:
    null = fit(harmless(np.random.default_rng(7), 120))
    column = null.names.index("noise shift")
    word, every, rare = (null.centres[kind, "prefix"][column] for kind in ("word", "any", "rare"))
    assert word < every < rare
    values = flat(4.0)
    found = [null.score(kind, values)["noise shift"] for kind in ("word", "no such kind", "rare")]
    assert found[0] > found[1] > found[2]
    elsewhere = {"replace": values["prefix"]}
    assert null.score("word", elsewhere) == null.score("rare", elsewhere), "at a position that no control took, all are the comparison"


def test_a_higher_score_never_has_a_higher_p() -> None:
    null = fit(harmless(np.random.default_rng(8), 120))
    for name in DECIDING:
        found = [null.p(dict.fromkeys(SIGNALS, 0.0) | {name: x}) for x in np.linspace(0, 30, 300)]
        assert found == sorted(found, reverse=True)
        assert 0 < found[-1] < found[0] <= 1


@pytest.mark.parametrize("n", [0, 5, FEWEST - 1])
def test_too_few_controls(n: int) -> None:
    with pytest.raises(ValueError, match="expected at least"):
        fit(harmless(np.random.default_rng(9), n))


def test_the_fewest_controls_are_enough_and_none_of_them_is_given_up() -> None:
    controls = harmless(np.random.default_rng(9), FEWEST - 1)
    assert len(fit([*controls, Control("planted", "word", flat(60.0))]).scores) == FEWEST


def test_controls_without_spread() -> None:
    with pytest.raises(ValueError, match="spread"):
        fit([Control(str(i), "word", flat(1.0)) for i in range(50)])


def test_a_signal_that_is_not_finite() -> None:
    controls = harmless(np.random.default_rng(9), 50)
    with pytest.raises(ValueError, match="not finite"):
        fit([*controls, Control("odd", "word", flat(float("inf")))])


def test_an_override_that_is_rare_but_small_decides_nothing() -> None:
    null = fit(harmless(np.random.default_rng(3), 120))
    nothing = dict.fromkeys(SIGNALS, 0.0)
    large = {"override": 1e6}
    assert null.p(nothing | large) < 1e-3
    tight = replace(null, tails={**null.tails, "override": stats.ExponentialTail.fit(np.full(120, 1.0) + 0.001 * np.arange(120) / 120)})
    assert tight.tails["override"].p(LEAST["override"] - 0.01) < 1e-3
    assert tight.p(nothing | {"override": LEAST["override"] - 0.01}) == 1.0
    assert tight.p(nothing | {"override": LEAST["override"]}) < 1e-3
