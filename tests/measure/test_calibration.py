"""The null on simulated harmless signals: p-values about uniform, few false alarms, and one bad control thrown out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from bdaudit import stats
from bdaudit.measure.calibration import DECIDING, Null, combine, fit
from bdaudit.measure.signals import SIGNALS

KINDS = ("word", "phrase", "character", "emoji", "rare")
Texts = list[tuple[str, str, dict[str, float]]]


def harmless(rng: np.random.Generator, n: int) -> Texts:
    """Texts whose signals share one cause, each kind about a centre of its own."""
    texts: Texts = []
    for i in range(n):
        kind = KINDS[i % len(KINDS)]
        cause = rng.standard_normal()
        values = {name: KINDS.index(kind) + 0.7 * cause + 0.7 * rng.standard_normal() for name in SIGNALS}
        texts.append((f"{kind} {i}", kind, values))
    return texts


def p_values(null: Null, texts: Texts) -> list[float]:
    return [null.p(null.score(kind, values)) for _, kind, values in texts]


def test_harmless_texts_get_about_uniform_p_values() -> None:
    rng = np.random.default_rng(0)
    found = [p for _ in range(40) for p in p_values(fit(harmless(rng, 120)), harmless(rng, 25))]
    assert scipy_stats.kstest(found, "uniform").statistic < 0.06
    for level in (0.2, 0.05, 0.01):
        assert np.mean(np.array(found) <= level) < 1.3 * level + 0.01


def test_a_scan_of_a_clean_model_seldom_calls_anything_backdoored() -> None:
    rng = np.random.default_rng(1)
    alarms = [min(stats.holm(p_values(fit(harmless(rng, 120)), harmless(rng, 60)))) <= 0.05 for _ in range(120)]
    assert stats.clopper_pearson(sum(alarms), len(alarms), 0.99)[0] <= 0.05


def test_a_strong_text_is_found() -> None:
    rng = np.random.default_rng(2)
    null = fit(harmless(rng, 120))
    strong = {name: 25.0 for name in SIGNALS}
    assert 200 * null.p(null.score("word", strong)) < 0.01


def test_one_control_that_behaves_like_a_trigger_is_left_out_and_named() -> None:
    controls = harmless(np.random.default_rng(3), 120)
    planted = ("planted", "word", {name: 60.0 for name in SIGNALS})
    with_it, without = fit([*controls, planted]), fit(controls)
    assert with_it.outliers == ("planted",)
    assert without.outliers == ()
    assert with_it.scores == pytest.approx(without.scores)
    assert len(with_it.scores) == 120


def test_the_order_of_controls_does_not_matter() -> None:
    controls = harmless(np.random.default_rng(4), 100)
    shuffled = [controls[i] for i in np.random.default_rng(5).permutation(100)]
    a, b = fit(controls), fit(shuffled)
    values = {name: 6.0 for name in SIGNALS}
    assert a.score("word", values) == pytest.approx(b.score("word", values))
    assert a.p(4.0) == pytest.approx(b.p(4.0))
    assert sorted(a.scores) == pytest.approx(sorted(b.scores))


def test_scores_do_not_depend_on_a_signals_unit() -> None:
    controls = harmless(np.random.default_rng(6), 100)
    scaled = [(text, kind, {name: 10 * v + 3 for name, v in values.items()}) for text, kind, values in controls]
    assert fit(scaled).scores == pytest.approx(fit(controls).scores)


def test_each_kind_is_compared_with_its_own_and_an_unknown_one_with_all() -> None:
    null = fit(harmless(np.random.default_rng(7), 120))
    values = {name: 4.0 for name in SIGNALS}
    assert null.score("word", values) > null.score("rare", values)
    assert null.centres["word"]["noise shift"] < null.centres["any"]["noise shift"] < null.centres["rare"]["noise shift"]
    assert null.z("no such kind", values) == {n: (4.0 - null.centres["any"][n]) / null.scales[n] for n in null.scales}


def test_a_higher_score_never_has_a_higher_p() -> None:
    null = fit(harmless(np.random.default_rng(8), 120))
    found = [null.p(x) for x in np.linspace(-5, 30, 300)]
    assert found == sorted(found, reverse=True)
    assert 0 < found[-1] < found[0] <= 1


def test_only_the_deciding_signals_decide() -> None:
    assert set(DECIDING) <= set(SIGNALS)
    z = {name: 1.0 for name in SIGNALS}
    others = {name: 99.0 for name in SIGNALS if name not in DECIDING}
    assert combine(z | others) == pytest.approx(combine(z))
    assert combine(z | {DECIDING[0]: 2.0}) > combine(z)


@pytest.mark.parametrize("n", [5, 20])
def test_too_few_controls(n: int) -> None:
    with pytest.raises(ValueError, match="expected at least"):
        fit(harmless(np.random.default_rng(9), n))


def test_controls_without_spread() -> None:
    with pytest.raises(ValueError, match="spread"):
        fit([(str(i), "word", dict.fromkeys(SIGNALS, 1.0)) for i in range(50)])
