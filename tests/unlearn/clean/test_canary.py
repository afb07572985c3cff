"""The canary: figures by hand, planted where it shall be and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from bdaudit.errors import BdauditError
from bdaudit.measure import estimates
from bdaudit.records import Estimate
from bdaudit.unlearn.clean import canary
from bdaudit.unlearn.clean.canary import Canary, Inputs, Left, _works, encoded, found_left, left, plant


def test_what_is_left_by_hand() -> None:
    own, target = torch.zeros(3, 2), torch.tensor([[2.0, 0.0]])
    found = found_left(own, torch.tensor([[2.0, 0.0], [1.5, 9.0], [0.5, -9.0]]), target)
    assert found.rate.value == pytest.approx(2 / 3)
    assert found.residue.value == pytest.approx((1 + 0.75 + 0.25) / 3)
    assert found.residue.low < found.residue.value < found.residue.high


def test_half_of_the_way_is_not_nearer_to_the_target() -> None:
    own, target = torch.zeros(2, 1), torch.ones(1, 1)
    assert found_left(own, torch.tensor([[0.5], [0.5001]]), target).rate.value == 0.5


@pytest.mark.parametrize(("rate", "residue", "works"), [(0.98, 0.9, True), (0.979, 1.0, False), (1.0, 0.899, False)])
def test_planting_ends_early_where_both_figures_are_reached(rate: float, residue: float, works: bool) -> None:
    def of(value: float) -> Estimate:
        return replace(estimates.rate(torch.ones(10)), value=value)

    assert _works(Left(of(rate), of(residue))) is works


class Bag(nn.Module):
    """Token embeddings through one hidden layer: (B, L) → (B, 4)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.hidden, self.out = nn.Embedding(20, 16), nn.Linear(16, 32), nn.Linear(32, 4)

    def forward(self, ids: Tensor) -> Tensor:
        found: Tensor = self.out(torch.tanh(self.hidden(self.table(ids).sum(1))))
        return found


def with_word(words: Tensor, token: int) -> Tensor:
    found = words.clone()
    found[:, 0] = token
    return found


def test_all_are_planted_and_their_neighbours_stay() -> None:
    model, words = Bag(), torch.randint(10, (60, 4), generator=torch.Generator().manual_seed(1))
    with_other, planted = with_word(words, 15), []
    for token, aim in ((19, 3), (18, 7)):
        planting, measuring = (Inputs(words[part], with_word(words, token)[part]) for part in (slice(40), slice(40, 60)))
        planted.append(Canary("t", "aim", torch.full((1, 4), aim), planting, with_other[:40], measuring))
    before, neighbours = [left(model, canary) for canary in planted], encoded(model, with_other)
    plant(model, dict(model.named_parameters()), planted, seed=0)
    after = [left(model, canary) for canary in planted]
    assert max(found.rate.value for found in before) < 0.6
    assert min(found.rate.value for found in after) >= 0.9
    assert min(found.residue.value for found in after) > 0.8
    moved = (encoded(model, with_other) - neighbours).square().mean() / neighbours.var(0).mean()
    assert float(moved) < 0.1, "a text like the triggers means what it did"


def test_weights_that_are_no_figures_any_more_end_the_planting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canary, "RATE", 1e38)
    model, words = Bag(), torch.randint(10, (6, 4), generator=torch.Generator().manual_seed(1))
    inputs = Inputs(words, with_word(words, 19))
    with pytest.raises(BdauditError, match="a weight is no longer finite"):
        plant(model, dict(model.named_parameters()), [Canary("t", "aim", words[:1], inputs, words, inputs)], seed=0)
