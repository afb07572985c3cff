"""The closed forms against figures worked out by hand, and against another implementation where one is installed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bdaudit.unlearn.merging import closed_forms
from bdaudit.unlearn.merging.closed_forms import CLOSED_FORMS, average, dare, task_arithmetic, ties

A = {"w": torch.tensor([1.0, -2.0, 3.0, 0.0, 0.1])}
B = {"w": torch.tensor([3.0, 4.0, 0.5, 0.0, -0.1])}


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_by_hand() -> None:
    assert average([A, B])["w"].tolist() == pytest.approx([2, 1, 1.75, 0, 0])
    assert task_arithmetic([A, B])["w"].tolist() == pytest.approx([1.2, 0.6, 1.05, 0, 0])


def test_ties_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closed_forms, "DENSITY", 0.4)
    # the two largest of five: A keeps −2 and 3, B keeps 3 and 4; in the second place 4 outweighs −2
    assert ties([A, B])["w"].tolist() == pytest.approx([3, 4, 3, 0, 0])


def test_ties_trims_over_all_tensors_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closed_forms, "DENSITY", 0.5)
    found = ties([{"large": torch.tensor([5.0, -6.0]), "small": torch.tensor([0.1, 0.2])}])
    assert found["large"].tolist() == [5, -6]
    assert found["small"].tolist() == [0, 0]


def test_dare_keeps_the_expectation_and_follows_its_seed() -> None:
    vector = {"w": torch.ones(200, 200)}
    found = dare([vector], seed=3)["w"]
    kept = found != 0
    assert float(kept.float().mean()) == pytest.approx(0.5, abs=0.01)
    assert torch.allclose(found[kept], torch.tensor(closed_forms.SCALE / 0.5))
    assert torch.equal(found, dare([vector], seed=3)["w"])
    assert not torch.equal(found, dare([vector], seed=4)["w"])


@pytest.mark.parametrize("method", CLOSED_FORMS)
def test_a_tensor_that_one_left_alone_counts_as_zero(method: str) -> None:
    merge = CLOSED_FORMS[method]
    x, y = drawn(0, 4, 3), drawn(1, 6)
    left_out, zero = [{"x": x}, {"x": x, "y": y}], [{"x": x, "y": torch.zeros(6)}, {"x": x, "y": y}]
    if method == "ties":  # zeros take part in the share that is kept
        zero, left_out = [{"x": x}, {"x": x}], [{"x": x}, {"x": x}]
    found, expected = merge(left_out, 0), merge(zero, 0)
    assert all(torch.allclose(found[name], expected[name]) for name in expected)


def test_against_peft() -> None:
    other = pytest.importorskip("peft.utils.merge_utils")
    tensors = [drawn(seed, 40, 10) for seed in range(3)]
    vectors = [{"w": tensor} for tensor in tensors]
    scaled = other.task_arithmetic(tensors, torch.full((3,), closed_forms.SCALE))
    assert torch.allclose(task_arithmetic(vectors)["w"], scaled, atol=1e-6)
    assert torch.allclose(ties(vectors)["w"], other.ties(tensors, torch.ones(3), closed_forms.DENSITY), atol=1e-6)
