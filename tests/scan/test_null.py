"""The null on simulated harmless signals: T by hand, bounded explanations, quiet signals that make up for nothing, kinds that are loud."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bdaudit.scan.null import CAP, MEANINGLESS, Null, Sample, Scale, fit, learn
from bdaudit.scan.signals import STATES

NAMES = ("noise shift", "common shift", STATES)
KINDS = ("word", "phrase", "character", "emoji", "rare")


def harmless(rng: np.random.Generator, n: int) -> Sample:
    """Signals that share one cause, rise with the level, and have a centre by kind."""
    level, cause = rng.normal(-2, 0.4, n), rng.normal(0, 0.3, n)
    kinds = tuple(KINDS[i % len(KINDS)] for i in range(n))
    offsets = np.array([0.1 * KINDS.index(kind) for kind in kinds])
    raw = np.stack([2 * level + cause + offsets + rng.normal(0, 0.3, n) for _ in NAMES], axis=1)
    raw[:, 2] -= 2 * level
    return Sample(NAMES, raw, level, kinds)


@pytest.fixture(name="sample")
def _sample() -> Sample:
    return harmless(np.random.default_rng(0), 120)


def t_of(null: Null, raw: np.ndarray, level: float, kind: str = "word") -> float:
    return null.scale.statistic(null.scale.standard(raw, level, kind))


def plain(whitening: np.ndarray) -> Scale:
    zero = np.zeros(len(whitening))
    return Scale((-9.0, 9.0), {}, zero, {}, zero, np.ones(len(whitening)), whitening)


def test_t_of_independent_signals_is_the_squared_length_of_the_larger_ones() -> None:
    scale = plain(np.eye(3))
    assert scale.statistic(np.array([3.0, -1.0, 4.0])) == pytest.approx(25.0)
    assert scale.statistic(np.array([-0.5, -1.0, 0.0])) == pytest.approx(-1.25)


def test_t_of_correlated_signals_is_the_likelihood_ratio_of_the_cone() -> None:
    correlation = np.array([[1.0, 0.5], [0.5, 1.0]])
    scale = plain(np.linalg.cholesky(np.linalg.inv(correlation)).T)
    z = np.array([2.0, 1.5])  # inside the cone: all of it counts
    assert scale.statistic(z) == pytest.approx(float(z @ np.linalg.inv(correlation) @ z))
    edge = np.array([2.0, -1.0])  # the second can be no larger: what is left of the first beside it
    grid = min(float((edge - [x, 0]) @ np.linalg.inv(correlation) @ (edge - [x, 0])) for x in np.linspace(0, 4, 4001))
    assert scale.statistic(edge) == pytest.approx(float(edge @ np.linalg.inv(correlation) @ edge) - grid, abs=1e-5)


def test_no_signal_is_so_quiet_that_it_makes_up_for_another(sample: Sample) -> None:
    null = fit(sample)
    loud, quiet = np.array([4.0, 4.0, -0.1]), np.array([4.0, 4.0, -60.0])
    assert t_of(null, quiet, -2.0) == pytest.approx(t_of(null, np.array([4.0, 4.0, -50.0]), -2.0))
    assert t_of(null, quiet, -2.0) > 0.5 * t_of(null, loud, -2.0) > 20
    assert null.scale.standard(quiet, -2.0, "word").min() == -1.0


def test_what_the_encodings_movement_explains_is_taken_off_up_to_the_controls_own(sample: Sample) -> None:
    null = fit(sample)
    for level in (-2.5, -1.5):
        assert t_of(null, np.array([2 * level, 2 * level, 0.0]), level) < 3
    top = float(np.quantile(sample.level, CAP))
    assert null.scale.span[1] == pytest.approx(top)
    assert t_of(null, np.array([8.0, 8.0, 0.0]), 4.0) == t_of(null, np.array([8.0, 8.0, 0.0]), top) > 100


def test_a_level_below_the_controls_own_promises_no_smaller_effect(sample: Sample) -> None:
    null = fit(sample)
    raw = np.array([-6.0, -6.0, 0.0])
    assert t_of(null, raw, -9.0) == t_of(null, raw, null.scale.span[0])


@pytest.mark.parametrize(("kind", "bounded"), [("emoji", True), ("word", False)])
def test_a_text_that_means_nothing_is_explained_as_far_as_those_that_mean_nothing_move(kind: str, bounded: bool) -> None:
    sample = harmless(np.random.default_rng(1), 120)
    words = np.array([k not in MEANINGLESS for k in sample.kinds])
    level = sample.level + 1.5 * words  # what means something moves the encoding further
    raw = sample.raw + np.outer(3.0 * words, [1, 1, 0])
    null = fit(replace(sample, level=level, raw=raw))
    high = float(level.max()) - 0.2
    t = t_of(null, np.array([2 * high, 2 * high, 0.0]), high, kind)
    assert (t > 25) == bounded


def test_controls_are_scored_without_themselves_and_about_alike_in_tail(sample: Sample) -> None:
    null = fit(sample)
    own = [t_of(null, raw, level, kind) for raw, level, kind in zip(sample.raw, sample.level.tolist(), sample.kinds, strict=True)]
    assert np.median(null.statistics) == pytest.approx(np.median(own), abs=0.5)
    alone = learn(sample.at([i for i in range(120) if i % 8 != 3]))
    assert null.statistics[3] == alone.statistic(alone.standard(sample.raw[3], float(sample.level[3]), sample.kinds[3]))


def test_a_kind_is_not_explained_by_being_loud_as_a_kind(sample: Sample) -> None:
    loud = np.array([kind == "emoji" for kind in sample.kinds])
    tampered = fit(replace(sample, raw=sample.raw + np.outer(6.0 * loud, [1, 1, 0])))
    assert tampered.loud["emoji"] > 2 > max(value for kind, value in tampered.loud.items() if kind != "emoji")
    assert max(fit(sample).loud.values()) < 1.5
    raw, level = sample.raw[3] + [9.0, 9.0, 0.0], float(sample.level[3])
    assert sample.kinds[3] == "emoji"
    assert t_of(tampered, raw, level, "emoji") > 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.at(range(24)), "expected at least 25"),
        (lambda s: replace(s, raw=np.where(s.raw == s.raw[0, 0], np.nan, s.raw)), "not finite"),
        (lambda s: replace(s, raw=np.zeros_like(s.raw)), "no spread"),
    ],
)
def test_controls_that_give_no_null(sample: Sample, change: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        fit(change(sample))  # type: ignore[operator]


def test_so_few_controls_are_enough(sample: Sample) -> None:
    assert len(fit(sample.at(range(25))).statistics) == 25
