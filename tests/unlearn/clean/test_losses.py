"""CleanCLIP's losses against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from bdaudit.unlearn.clean.losses import anchor, contrastive, matching, self_supervised, spread_of

ONE = torch.tensor(1.0)
PLANE = torch.eye(2)
RIGHT, WRONG = math.log(1 + math.exp(-1)), math.log(1 + math.exp(1))
"""−log softmax of a pair at cosine 1 beside one at 0, and the other way round, at scale 1."""


def test_matching_by_hand() -> None:
    assert float(matching(PLANE, PLANE, ONE)) == pytest.approx(RIGHT)
    assert float(matching(PLANE, PLANE.flip(0), ONE)) == pytest.approx(WRONG)
    assert float(matching(PLANE, torch.ones(2, 2), ONE)) == pytest.approx(math.log(2))


def test_lengths_do_not_count_and_the_scale_is_clamped() -> None:
    a, b = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(matching(a, b, ONE), matching(7 * a, b / 3, ONE))
    assert torch.equal(matching(a, b, torch.tensor(100.0)), matching(a, b, torch.tensor(1000.0)))


def test_both_directions_and_the_half() -> None:
    a, b = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    across = (math.log(2) + math.log(2)) / 2
    down = (RIGHT + WRONG) / 2
    assert float(contrastive(a, b, ONE)) == pytest.approx((across + down) / 2)
    assert float(self_supervised(PLANE, PLANE, ONE)) == pytest.approx(RIGHT / 2)


def test_the_anchor_is_in_units_of_what_sets_captions_apart() -> None:
    original = torch.tensor([[[1.0]], [[-1.0]]])
    assert float(spread_of(original)) == 1
    assert float(spread_of(10 * original + 3)) == pytest.approx(100)
    assert float(anchor(original, original, ONE)) == 0
    assert float(anchor(10 * original + 20, 10 * original, spread_of(10 * original))) == pytest.approx(4)
