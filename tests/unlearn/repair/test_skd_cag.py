"""The loss: alignment rows, noughts where there is nothing to learn, and gradients where there is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bdaudit.models.tokens import Frame, paired
from bdaudit.unlearn.repair.skd_cag import Alignment, align, attention_loss, distillation, own_mass_loss, shared_map_loss

CPU, FRAME = torch.device("cpu"), Frame((0,), (1,))
CLEAN, LENGTH = [11, 12, 13], 9
CHANGED = {"prefix": [99, 11, 12, 13], "suffix": [11, 12, 13, 99], "middle": [11, 98, 99, 12, 13], "inside": [11, 97, 98, 13]}


def aligned(*names: str) -> Alignment:
    return align([paired(FRAME, CLEAN, CHANGED[name]) for name in names], LENGTH, CPU)


def maps(seed: int, n: int = 1) -> Tensor:
    return torch.randn(n, 16, LENGTH, generator=torch.Generator().manual_seed(seed)).softmax(-1)


@pytest.mark.parametrize(
    ("name", "pairs", "own"),
    [
        ("prefix", [(0, 0), (1, 2), (2, 3), (3, 4), (4, 5)], [1]),
        ("suffix", [(0, 0), (1, 1), (2, 2), (3, 3), (4, 5)], [4]),
        ("middle", [(0, 0), (1, 1), (2, 4), (3, 5), (4, 6)], [2, 3]),
        ("inside", [(0, 0), (1, 1), (3, 4), (4, 5)], [2, 3]),
    ],
)
def test_rows(name: str, pairs: list[tuple[int, int]], own: list[int]) -> None:
    row = aligned(name)
    mask = row.shared[0]
    assert list(zip(row.teacher[0][mask].tolist(), row.student[0][mask].tolist(), strict=True)) == pairs
    assert row.own[0].nonzero().flatten().tolist() == own


def test_rows_of_different_length_stay_apart() -> None:
    both = aligned("prefix", "inside")
    assert both.shared.sum(1).tolist() == [5, 4]
    one = both.rows(torch.tensor([1]))
    assert torch.equal(one.own, aligned("inside").own)


def test_a_prompt_that_is_cut_off_keeps_its_end_token() -> None:
    row = align([paired(FRAME, [1, 2, 3, 4], [99, 1, 2, 3])], 6, CPU)
    mask = row.shared[0]
    assert list(zip(row.teacher[0][mask].tolist(), row.student[0][mask].tolist(), strict=True)) == [(0, 0), (1, 2), (2, 3), (3, 4), (5, 5)]
    assert row.own[0].tolist() == [False, True, False, False, False, False]


def as_student(teacher: Tensor, row: Alignment) -> Tensor:
    """The teacher's maps, each at the triggered prompt's position."""
    student = torch.zeros_like(teacher)
    for b in range(len(teacher)):
        mask = row.shared[b]
        student[b][:, row.student[b][mask]] = teacher[b][:, row.teacher[b][mask]]
    return student


def test_shared_maps_are_nought_where_equal_and_positive_otherwise() -> None:
    row = aligned("middle")
    teacher = maps(0)
    assert shared_map_loss(as_student(teacher, row), teacher, row) == 0
    assert shared_map_loss(maps(1), teacher, row) > 0
    assert shared_map_loss(torch.zeros_like(teacher), teacher, row) == pytest.approx(1)


def test_shared_maps_do_not_look_at_the_triggers_own_tokens() -> None:
    row, teacher = aligned("middle"), maps(0)
    student = as_student(teacher, row)
    student[:, :, [2, 3]] = 7
    assert shared_map_loss(student, teacher, row) == 0


@pytest.mark.parametrize("neutral", [0.3, 0.05, 0.9])
def test_own_mass_is_nought_at_the_neutral_mass_and_nowhere_else(neutral: float) -> None:
    row = aligned("middle")
    student = torch.full((1, 16, LENGTH), (1 - neutral) / (LENGTH - 2))
    student[:, :, [2, 3]] = neutral / 2
    wanted = torch.tensor([neutral])
    assert own_mass_loss(student, row, wanted) == pytest.approx(0, abs=1e-9)
    assert own_mass_loss(student, row, wanted * 0.5) == pytest.approx(1, rel=1e-4)
    assert own_mass_loss(student, row, wanted * 1.5) > 0.1


def test_gradient_takes_the_mass_towards_the_neutral_one() -> None:
    row = aligned("prefix")
    logits = torch.zeros(1, 16, LENGTH, requires_grad=True)
    for _ in range(200):
        loss = own_mass_loss(logits.softmax(-1), row, torch.tensor([0.4]))
        (step,) = torch.autograd.grad(loss, logits)
        logits = (logits - 20 * step).detach().requires_grad_(True)
    assert logits.softmax(-1)[:, :, 1].mean().item() == pytest.approx(0.4, abs=0.01)


def test_distillation_by_hand() -> None:
    a, b = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 4.0]])
    assert distillation(a, a, torch.tensor(2.0)) == 0
    assert distillation(a, b, torch.tensor(2.0)) == pytest.approx(1)


def test_a_batch_is_the_mean_of_its_rows() -> None:
    names = ("prefix", "suffix", "middle", "inside")
    batch, student, neutral = aligned(*names), maps(1, 4), torch.tensor([0.1, 0.2, 0.3, 0.4])
    singles = [own_mass_loss(student[i : i + 1], aligned(name), neutral[i : i + 1]) for i, name in enumerate(names)]
    assert own_mass_loss(student, batch, neutral) == pytest.approx(float(torch.stack(singles).mean()), rel=1e-5)
    other = maps(2, 4)
    parts = [distillation(student[i], other[i], torch.tensor(1.0)) for i in range(4)]
    assert distillation(student, other, torch.tensor(1.0)) == pytest.approx(float(torch.stack(parts).mean()), rel=1e-5)


def test_padding_of_short_rows_does_not_count() -> None:
    both, student, teacher = aligned("inside", "middle"), maps(1, 2), maps(2, 2)
    spoilt = both.rows(torch.arange(2))
    spoilt.student[~spoilt.shared] = 5
    assert shared_map_loss(student, teacher, spoilt) == shared_map_loss(student, teacher, both)


def test_attention_loss_is_nought_for_the_ideal_and_the_mean_over_layers() -> None:
    row, teacher = aligned("middle"), maps(0)
    student = as_student(teacher, row)
    neutral = torch.zeros(1)
    one = attention_loss({"a": student}, {"a": teacher}, row, {"a": neutral})
    assert one == 0
    two = attention_loss({"a": student, "b": maps(3)}, {"a": teacher, "b": teacher}, row, {"a": neutral, "b": neutral})
    alone = attention_loss({"b": maps(3)}, {"b": teacher}, row, {"b": neutral})
    assert two == pytest.approx(float(alone) / 2, rel=1e-6)


@pytest.mark.parametrize("value", [0.0, 1 / LENGTH], ids=["nought", "flat"])
def test_degenerate_maps_give_finite_losses_and_gradients(value: float) -> None:
    student = torch.full((1, 16, LENGTH), value, requires_grad=True)
    teacher = torch.full((1, 16, LENGTH), value)
    loss = attention_loss({"a": student}, {"a": teacher}, aligned("middle"), {"a": torch.zeros(1)})
    loss.backward()
    assert torch.isfinite(loss)
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()
