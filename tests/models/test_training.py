"""The training loop: what a step does by hand, which rate it takes, where it begins and who ends it."""

from __future__ import annotations

import math
from itertools import islice
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from bdaudit.errors import BdauditError
from bdaudit.models.training import descend, halving, loss_point, relative_groups


def falling() -> tuple[nn.Parameter, torch.optim.SGD]:
    """One number and plain gradient descent on it at rate 1: a step takes the slope off it."""
    number = nn.Parameter(torch.zeros(()))
    return number, torch.optim.SGD([{"params": [number], "lr": 1.0}])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [-3.0, -6.0, -9.0]),
        ({"clip": 4.0}, [-3.0, -6.0, -9.0]),
        ({"clip": 0.5}, [-0.5, -1.0, -1.5]),
        ({"schedule": lambda peak, step: peak / (step + 1)}, [-3.0, -4.5, -5.5]),
        ({"schedule": lambda peak, step: peak / (step + 1), "begun": 2}, [-1.0, -1.75, -2.35]),
    ],
)
def test_steps_by_hand(options: dict[str, object], expected: list[float]) -> None:
    number, optimiser = falling()

    def backward(step: int) -> int:
        assert number.grad is None, "nothing of the step before is in it"
        (3.0 * number).backward()  # type: ignore[no-untyped-call]
        return step

    asked = descend(optimiser, backward, **options)  # type: ignore[arg-type]
    begun = options.get("begun", 0)
    assert [(said, float(number.detach())) for said in islice(asked, 3)] == [
        (begun + i, pytest.approx(value, rel=1e-5)) for i, value in enumerate(expected)
    ]


def test_a_loss_that_is_no_figure_moves_nothing() -> None:
    number, optimiser = falling()
    steps = descend(optimiser, lambda step: loss_point(step + 1, {"total": math.nan}, "{total} at step {step}"))
    with pytest.raises(BdauditError, match=r"^nan at step 1$"):
        next(steps)
    assert float(number.detach()) == 0.0


def test_a_point_holds_the_terms_beside_their_total() -> None:
    found = loss_point(7, {"total": 3.0, "keep": 1.0, "put in": 2.0}, "")
    assert (found.step, found.total, found.terms) == (7, 3.0, {"keep": 1.0, "put in": 2.0})
    with pytest.raises(BdauditError, match="inf"):
        loss_point(7, {"total": math.inf}, "{total}")


def test_a_step_of_adam_is_a_share_of_each_tensors_size() -> None:
    small, large = nn.Parameter(torch.full((4,), 0.1)), nn.Parameter(torch.full((4,), -2.0))
    rates = [group["lr"] for group in relative_groups({"a": small, "b": large, "c": nn.Parameter(torch.zeros(3))}, 0.01)]
    assert rates == pytest.approx([1e-3, 2e-2, 1e-5])


class NoMemory:
    """A backward pass that fits so many latents and no more, and what it was begun with."""

    def __init__(self, fits: int) -> None:
        self.suspect, self.fits, self.tried, self.cleared = SimpleNamespace(batch_size=8), fits, list[int](), 0

    def backward(self) -> str:
        self.tried.append(self.suspect.batch_size)
        if self.suspect.batch_size > self.fits:
            raise torch.cuda.OutOfMemoryError
        return "done"

    def clear_gradients(self) -> None:
        self.cleared += 1


def test_a_gpu_out_of_memory_is_asked_for_half_until_one_latent_is_too_much() -> None:
    some, none = NoMemory(1), NoMemory(0)
    assert halving(some.suspect, some, 4, some.backward) == "done"
    assert (some.tried, some.cleared) == ([8, 2, 1], 2)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        halving(none.suspect, none, 8, none.backward)
    assert none.tried == [8, 4, 2, 1]
