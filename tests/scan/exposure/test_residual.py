"""What is left of an effect, against harmless texts with about the same effect."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bdaudit.scan.exposure.residual import FEWEST, Residual, fit


def harmless(n: int, seed: int = 0) -> list[Residual]:
    """The larger a text's effect, the less is left of it."""
    rng = np.random.default_rng(seed)
    levels = rng.uniform(-6, 0, n)
    return [Residual(left=0.3 - 0.08 * level + 0.05 * noise, level=level) for level, noise in zip(levels, rng.normal(size=n), strict=True)]


def test_the_score_by_hand() -> None:
    controls = [Residual(left=i / 10, level=0.0) for i in range(41)]
    null = fit(controls)
    near = np.arange(40) / 10  # the first forty, all being equally near
    expected = (9.0 - np.median(near)) / (1.4826 * np.median(np.abs(near - np.median(near))))
    assert null.score(Residual(left=9.0, level=0.0)) == pytest.approx(expected)


def test_a_text_is_compared_with_those_of_its_own_effect() -> None:
    null = fit(harmless(200))
    usual_of_small = Residual(left=0.7, level=-5.0)
    assert null.p(usual_of_small) > 0.1
    assert null.p(replace(usual_of_small, level=-0.5)) < 1e-3, "of a large effect so much is not left"


def test_p_is_uniform_for_harmless_texts() -> None:
    null = fit(harmless(200))
    p = [null.p(residual) for residual in harmless(2000, seed=1)]
    for level in (0.01, 0.05, 0.2):
        assert np.mean(np.array(p) <= level) == pytest.approx(level, abs=0.5 * level + 0.005)


def test_a_trigger_among_the_controls_does_not_hide_another() -> None:
    neighbours = [Residual(left=left, level=-2.0) for left in (2.4, 2.6, 3.0)]
    trigger = Residual(left=2.5, level=-2.0)
    assert fit([*harmless(150), *neighbours]).p(trigger) == pytest.approx(fit(harmless(150)).p(trigger), rel=0.2)
    assert len(fit([*harmless(150), *neighbours]).left) == 150


def test_no_null_is_said_so() -> None:
    with pytest.raises(ValueError, match="got 24 controls"):
        fit(harmless(24))
    assert len(fit(harmless(25)).left) == 25
    with pytest.raises(ValueError, match="no spread"):
        fit([Residual(left=0.0, level=float(i)) for i in range(60)])


def test_controls_that_stand_apart_are_no_null() -> None:
    controls = harmless(200)
    assert len(fit(controls).left) == 200
    controls[0] = replace(controls[0], left=50.0)
    assert fit(controls).left.max() < 1
    assert len(fit(controls).left) == 199
    assert len(fit(harmless(FEWEST)).left) == FEWEST
    with pytest.raises(ValueError, match="expected at least 25"):
        fit(harmless(FEWEST - 1))
