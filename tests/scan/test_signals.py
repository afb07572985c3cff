"""One number a signal, by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from bdaudit.measure.paths import PathEffect
from bdaudit.measure.text_effects import TextEffect
from bdaudit.scan.signals import along, centres_of, level_of, unit, usual_in

PLAIN = TextEffect(shift=(0.0, 1.0, 2.0, 3.0), override=(0.1,) * 4, states=(-1.0,) * 4, level=(-2.0, -1.0, -2.0, -1.0), common=-5.0)
GROUPS = ((0, 1), (2, 3))


def moved(by: float, **changes: object) -> TextEffect:
    return replace(PLAIN, shift=tuple(x + by for x in PLAIN.shift), **changes)  # type: ignore[arg-type]


@pytest.fixture(name="controls")
def _controls() -> list[TextEffect]:
    return [moved(by) for by in np.linspace(-1, 1, 21)]


def test_signals_are_means_beside_the_median_control(controls: list[TextEffect]) -> None:
    centres = centres_of(controls, GROUPS)
    assert centres.names == ("noise shift", "context shift", "common shift", "override", "state shift")
    raw = centres.raw(moved(3.0, common=-2.0, override=(0.4,) * 4, states=(-0.5,) * 4))
    assert raw == pytest.approx([3.0, 3.0 / (0.9 / 1.6449), -2.0, 0.3, 0.5], rel=1e-3)


def test_a_group_is_not_averaged_away(controls: list[TextEffect]) -> None:
    centres = centres_of(controls, GROUPS)
    bound = replace(PLAIN, shift=(0.0, 1.0, 6.0, 7.0))
    assert centres.by_group(bound) == pytest.approx([0.0, 4.0])
    assert centres.raw(bound)[0] == pytest.approx(2.0)
    assert centres.raw(bound)[1] == pytest.approx(4.0 / (0.9 / 1.6449), rel=1e-3)


def test_attention_is_two_signals_more_where_it_was_recorded() -> None:
    seen = [replace(effect, share=(-3.0,) * 4, assimilation=(1.0,) * 4) for effect in (PLAIN, moved(1.0), moved(-1.0))]
    centres = centres_of(seen, GROUPS)
    assert centres.names[-2:] == ("attention share", "assimilation")
    assert centres.raw(replace(seen[0], share=(-2.0,) * 4, assimilation=(1.5,) * 4))[-2:] == pytest.approx([1.0, 0.5])


def test_a_path_counts_beside_what_others_do_on_it() -> None:
    quiet, restless = (-5.0, -2.0, -5.0), (1.0, 2.0, 0.5)
    usual = along([PathEffect(tuple(c + x * u for c, u in zip(quiet, restless, strict=True)), 0.0) for x in np.linspace(-1, 1, 101)])
    assert usual.centre.tolist() == pytest.approx(quiet)
    shifted = PathEffect((-4.0, 0.0, -3.5), -6.0)  # 1, 1 and 3 of what is usual
    unit_of = 0.9 / 1.6449
    assert usual.raw(shifted).tolist() == pytest.approx([5 / 3 / unit_of, 2 / unit_of, -6.0])


def test_what_is_usual_and_levels() -> None:
    assert level_of(PLAIN) == -1.5
    usual = usual_in([moved(0.5), moved(-0.5)], [0.5, -0.5])
    assert usual.tolist() == list(PLAIN.shift), "what a usual text does everywhere is no part of what is usual there"


def test_the_unit_is_the_upper_tails() -> None:
    rows = np.concatenate([np.zeros(50), np.linspace(0, 1, 51)])
    assert unit(rows) == pytest.approx((np.quantile(rows, 0.95) - np.median(rows)) / 1.6449)
    assert math.isclose(float(unit(-rows)), 0.0)
