"""Lengths beyond float32: as float64 has them, and as float32 has them where it can."""

from __future__ import annotations

import pytest
import torch

from bdaudit.scan.weights.norms import difference, norm, norms


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_of_any_size(dtype: torch.dtype) -> None:
    rows = torch.tensor([[3.0, 4.0], [3e30, 4e30], [0.0, 0.0]]).to(dtype)
    assert norms(rows) == pytest.approx(rows.double().norm(dim=1), rel=1e-6)
    assert norm(rows) == pytest.approx(float(rows.double().norm()), rel=1e-6)


def test_a_difference_beyond_float32() -> None:
    large = torch.full((2,), 3e38)
    assert difference(large, -large).tolist() == (2 * large.double()).tolist()
    assert difference(large, large).dtype == torch.float32
