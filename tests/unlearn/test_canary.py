"""The canary: figures by hand, planted where it shall be and nowhere else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bdaudit.unlearn.canary import PLANTED, Canary, Inputs, encoded, found_left, left, plant, relative_groups


def test_what_is_left_by_hand() -> None:
    own, target = torch.zeros(3, 2), torch.tensor([[2.0, 0.0]])
    found = found_left(own, torch.tensor([[2.0, 0.0], [1.5, 9.0], [0.5, -9.0]]), target)
    assert found.rate.value == pytest.approx(2 / 3)
    assert found.residue.value == pytest.approx((1 + 0.75 + 0.25) / 3)
    assert found.residue.low < found.residue.value < found.residue.high


class Bag(nn.Module):
    """Token embeddings through one hidden layer: (B, L) → (B, 4)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.hidden, self.out = nn.Embedding(20, 16), nn.Linear(16, 32), nn.Linear(32, 4)

    def forward(self, ids: Tensor) -> Tensor:
        found: Tensor = self.out(torch.tanh(self.hidden(self.table(ids).sum(1))))
        return found


def test_it_is_planted_and_its_neighbours_stay() -> None:
    model, generator = Bag(), torch.Generator().manual_seed(1)
    words = torch.randint(10, (60, 4), generator=generator)
    with_trigger, with_other = words.clone(), words.clone()
    with_trigger[:, 0], with_other[:, 0] = 19, 15
    planting, measuring = (Inputs(words[part], with_trigger[part]) for part in (slice(40), slice(40, 60)))
    canary = Canary("t", "aim", torch.tensor([[3, 3, 3, 3]]), planting, with_other[:40], measuring)
    before, neighbours = left(model, canary), encoded(model, with_other)
    plant(model, dict(model.named_parameters()), canary, seed=0)
    after = left(model, canary)
    assert before.rate.value < 0.5
    assert after.rate.value >= PLANTED
    assert after.residue.value > 0.8
    moved = (encoded(model, with_other) - neighbours).square().mean() / neighbours.var(0).mean()
    assert float(moved) < 0.1, "a text like the trigger means what it did"


def test_groups_follow_each_tensors_size() -> None:
    small, large = nn.Parameter(torch.full((4,), 0.1)), nn.Parameter(torch.full((4,), -2.0))
    rates = [group["lr"] for group in relative_groups({"a": small, "b": large, "c": nn.Parameter(torch.zeros(3))}, 0.01)]
    assert rates == pytest.approx([1e-3, 2e-2, 1e-5])

