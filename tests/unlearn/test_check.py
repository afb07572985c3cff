"""The checks on figures made by hand."""

from __future__ import annotations

import pytest
import torch

from bdaudit.measure.effect import Reading
from bdaudit.unlearn.check import _one_step, _pictures, _unmoved

NULL = torch.linspace(0.1, 1, 100)


@pytest.mark.parametrize(("shift", "status"), [(0.5, "passed"), (5.0, "failed")])
def test_the_one_step_effect_must_lie_within_the_null(shift: float, status: str) -> None:
    null = tuple(i / 40 for i in range(1, 41))
    check = _one_step("effect", "ȏ", Reading(shift, null))
    assert check.status == status
    assert check.name == "one-step effect of '\\u020f'"


@pytest.mark.parametrize(("hits", "status"), [(0, "passed"), (3, "passed"), (4, "failed"), (96, "failed")])
def test_pictures_are_counted_with_the_intervals_upper_end(hits: int, status: str) -> None:
    moved = torch.cat([torch.full((hits,), 2.0), torch.full((96 - hits,), 0.5)])
    check = _pictures("x", moved, NULL)
    assert check.status == status
    assert check.value.value == pytest.approx(hits / 96)  # type: ignore[union-attr]


@pytest.mark.parametrize(("distance", "status"), [(0.2, "passed"), (0.99, "failed")])
def test_clean_pictures_must_stay(distance: float, status: str) -> None:
    moved = distance + 0.001 * torch.randn(96, generator=torch.Generator().manual_seed(0))
    assert _unmoved("clean", moved, float(NULL.quantile(0.95))).status == status
