"""The null on simulated harmless signals: p-values about uniform, few false alarms, local comparisons, one bad control thrown out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats as scipy_stats

from bdaudit import stats
from bdaudit.measure.calibration import DECIDING, FEWEST, LEVEL, Control, Null, fit
from bdaudit.measure.signals import SIGNALS, Values

KINDS = ("word", "phrase", "character", "emoji", "rare")
PLACES = ("prefix", "suffix")


def harmless(rng: np.random.Generator, n: int) -> list[Control]:
    """Texts whose signals share one cause, each kind and position about a centre of its own."""
    return [Control(f"{i}", KINDS[i % len(KINDS)], drawn(rng, KINDS[i % len(KINDS)])) for i in range(n)]


def drawn(rng: np.random.Generator, kind: str, cause: float | None = None) -> Values:
    cause = rng.standard_normal() if cause is None else cause
    return {
        place: {name: KINDS.index(kind) + 2 * k + 0.7 * cause + 0.7 * rng.standard_normal() for name in SIGNALS}
        for k, place in enumerate(PLACES)
    }


def flat(value: float) -> Values:
    return {place: dict.fromkeys(SIGNALS, value) for place in PLACES}


def p_values(null: Null, texts: list[Control]) -> list[float]:
    return [null.p(null.z(text.kind, text.values)) for text in texts]


def test_harmless_texts_get_about_uniform_p_values() -> None:
    rng = np.random.default_rng(0)
    alone: list[list[float]] = []
    whole: list[float] = []
    for _ in range(40):
        null = fit(harmless(rng, 120))
        zs = [null.z(text.kind, text.values) for text in harmless(rng, 25)]
        alone += [[null.tails[name].p(z[name]) for name in DECIDING] for z in zs]
        whole += [null.p(z) for z in zs]
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
    assert stats.clopper_pearson(sum(alarms), len(alarms), 0.99)[0] <= 0.05


def test_a_strong_text_is_found_and_one_strong_position_is_enough() -> None:
    rng = np.random.default_rng(2)
    null = fit(harmless(rng, 120))
    usual = drawn(rng, "word", cause=0.0)
    strong = {**usual, "suffix": usual["suffix"] | dict.fromkeys(DECIDING, 25.0)}
    assert 200 * null.p(null.z("word", strong)) < 0.01
    assert null.p(null.z("word", usual)) > 0.05


def test_one_deciding_signal_is_enough_and_the_others_never_decide() -> None:
    rng = np.random.default_rng(2)
    null, usual = fit(harmless(rng, 120)), drawn(rng, "word", cause=0.0)
    assert set(DECIDING) < set(SIGNALS)
    for name in set(SIGNALS) - {LEVEL}:
        p = null.p(null.z("word", {place: values | {name: 25.0} for place, values in usual.items()}))
        assert (p < 1e-4) == (name in DECIDING)


def answering(rng: np.random.Generator, level: float, beyond: float = 0.0) -> Values:
    """A text that moves the encoding by ``level``, and the prediction in proportion and by ``beyond`` more."""
    return {
        place: {name: (level if name == LEVEL else 2 * level + beyond) + 0.3 * rng.standard_normal() for name in SIGNALS}
        for place in PLACES
    }


def test_a_text_is_compared_with_controls_that_move_the_encoding_as_far() -> None:
    rng = np.random.default_rng(10)
    controls = [Control(f"plain {i}", "word", answering(rng, 0.0)) for i in range(120)]
    controls += [Control(f"meaning {i}", "word", answering(rng, rng.uniform(0, 4)), meaning=True) for i in range(60)]
    null = fit(controls)
    meaning = [null.p(null.z("word", answering(rng, 3.0))) for _ in range(50)]
    assert min(meaning) > 1e-3
    assert np.mean(np.array(meaning) <= 0.05) <= 0.2
    unmoved = [null.p(null.z("word", answering(rng, 0.0, beyond=6.0))) for _ in range(20)]
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
    assert with_it.p_values == pytest.approx(without.p_values)
    assert len(with_it.p_values) == 120


def test_the_order_of_controls_does_not_matter() -> None:
    rng = np.random.default_rng(4)
    controls = harmless(rng, 100)
    order = rng.permutation(100)
    a, b = fit(controls), fit([controls[i] for i in order])
    values = flat(3.0)
    assert a.z("word", values) == pytest.approx(b.z("word", values))
    assert a.p(a.z("word", values)) == pytest.approx(b.p(b.z("word", values)))
    assert [a.p_values[i] for i in order] == pytest.approx(b.p_values)


@pytest.mark.parametrize("name", list(SIGNALS))
def test_scores_do_not_depend_on_a_signals_unit(name: str) -> None:
    rng = np.random.default_rng(6)
    controls, values = harmless(rng, 60), drawn(rng, "word")

    def scaled(old: Values) -> Values:
        return {place: signals | {name: 10 * signals[name] + 3} for place, signals in old.items()}

    a, b = fit(controls), fit([replace(control, values=scaled(control.values)) for control in controls])
    assert b.z("word", scaled(values)) == pytest.approx(a.z("word", values))
    assert b.p_values == pytest.approx(a.p_values)


def test_each_kind_is_compared_with_its_own_and_an_unknown_one_with_all() -> None:
    null = fit(harmless(np.random.default_rng(7), 120))
    column = null.names.index("noise shift")
    word, every, rare = (null.centres[kind, "prefix"][column] for kind in ("word", "any", "rare"))
    assert word < every < rare
    values = flat(4.0)
    assert null.z("word", values)["noise shift"] > null.z("no such kind", values)["noise shift"] > null.z("rare", values)["noise shift"]
    elsewhere = {"replace": values["prefix"]}
    assert null.z("word", elsewhere) == null.z("rare", elsewhere), "at a position that no control took, all are the comparison"


def test_a_higher_score_never_has_a_higher_p() -> None:
    null = fit(harmless(np.random.default_rng(8), 120))
    for name in DECIDING:
        found = [null.p(dict.fromkeys(SIGNALS, 0.0) | {name: x}) for x in np.linspace(-5, 30, 300)]
        assert found == sorted(found, reverse=True)
        assert 0 < found[-1] < found[0] <= 1


@pytest.mark.parametrize("n", [0, 5, FEWEST - 1])
def test_too_few_controls(n: int) -> None:
    with pytest.raises(ValueError, match="expected at least"):
        fit(harmless(np.random.default_rng(9), n))


def test_the_fewest_controls_are_enough_and_none_of_them_is_given_up() -> None:
    controls = harmless(np.random.default_rng(9), FEWEST - 1)
    assert len(fit([*controls, Control("planted", "word", flat(60.0))]).p_values) == FEWEST


def test_controls_without_spread() -> None:
    with pytest.raises(ValueError, match="spread"):
        fit([Control(str(i), "word", flat(1.0)) for i in range(50)])
