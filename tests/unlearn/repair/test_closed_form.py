"""Keys and values in closed form: against gradient descent on the same objective, and on a small model."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from bdaudit.models.suspect import Suspect
from bdaudit.unlearn.repair import closed_form
from bdaudit.unlearn.repair.closed_form import Moments, factor, moments, solve
from bdaudit.unlearn.repair.prompt_pairs import Pair, targets, triggered_pairs
from bdaudit.unlearn.weights import Patch
from tests.small import LONG_TRIGGER, PROMPTS

D = 6
PAIRS = triggered_pairs(PROMPTS, [LONG_TRIGGER])


def rows(n: int, seed: int) -> Tensor:
    return torch.randn(n, D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def summed(aim: Tensor, c: Tensor, kept: Tensor) -> Moments:
    return Moments(aim.T @ c / len(c), c.T @ c / len(c), kept.T @ kept / len(kept))


def test_the_factor_is_what_gradient_descent_finds() -> None:
    aim, c, kept = rows(20, 0), rows(20, 1), rows(30, 2)
    found = summed(aim, c, kept)
    ridge = closed_form.RIDGE * float(found.kept.diagonal().mean())
    change = torch.eye(D, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([change], max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        moved = 2.0 * (c @ change.T - aim).square().sum(1).mean() + (kept @ change.T - kept).square().sum(1).mean()
        total: Tensor = moved + ridge * (change - torch.eye(D, dtype=torch.float64)).square().sum()
        total.backward()
        return total

    optimiser.step(loss)
    assert torch.allclose(factor(found, 2.0), change.detach(), atol=1e-4)


def test_without_strength_nothing_changes() -> None:
    assert torch.allclose(factor(summed(rows(20, 0), rows(20, 1), rows(30, 2)), 0.0), torch.eye(D, dtype=torch.float64), atol=1e-12)


def test_few_states_still_have_a_solution() -> None:
    assert factor(summed(rows(2, 0), rows(2, 1), rows(3, 2)), 10.0).isfinite().all()


@pytest.mark.parametrize(("effects", "left"), [((1.0, 1.0), 0.95), ((1.0, 0.2, 0.05), 0.7)], ids=["gentle", "strong"])
def test_what_triggered_prompts_say_becomes_what_clean_ones_do(fresh_suspect: Suspect, effects: tuple[float, ...], left: float) -> None:
    patch, heard = Patch(fresh_suspect, "closed-form"), _read(effects)
    wanted, ids = targets(fresh_suspect, PAIRS)
    name = next(iter(patch.parameters))

    def apart() -> float:
        says = fresh_suspect.encode_ids(ids).states @ patch.parameters[name].T
        return float((says - wanted.states @ patch.originals[name].T).square().mean())

    before, kept = apart(), fresh_suspect.encode(PROMPTS).states
    solve(fresh_suspect, patch, PAIRS, [], lambda: next(heard))
    assert apart() < left * before
    moved = (kept @ (patch.parameters[name] - patch.originals[name]).T).square().mean()
    assert moved < before - apart(), "what is kept moves less than what is repaired"
    assert set(patch.differences()) == set(patch.parameters)
    assert not any(parameter.requires_grad for parameter in patch.parameters.values())


@pytest.mark.parametrize(
    ("effects", "strength"),
    [((1.0, 0.9), 0.1), ((1.0, 0.2, 0.19), 1.0), ((1.0, 0.2, 0.05), 10.0), ((1.0, math.inf), 0.1)],
    ids=["the first will do", "the second is worth it", "all of them", "worse than before"],
)
def test_the_gentlest_strength_beyond_which_little_is_gained(fresh_suspect: Suspect, effects: tuple[float, ...], strength: float) -> None:
    patch, left = Patch(fresh_suspect, "closed-form"), _read(effects)
    assert solve(fresh_suspect, patch, PAIRS, [], lambda: next(left)) == strength
    change = factor(moments(fresh_suspect, PAIRS, [])["states"], strength)
    for name, parameter in patch.parameters.items():
        assert torch.allclose(parameter.double(), patch.originals[name].double() @ change, atol=1e-5)


def _read(values: tuple[float, ...]) -> Iterator[float]:
    yield from values


def test_in_half_precision(half_suspect: Suspect) -> None:
    patch = Patch(half_suspect, "closed-form")
    solve(half_suspect, patch, PAIRS, [Pair(PROMPTS[0], PROMPTS[1])], lambda: 1.0)
    assert {p.dtype for p in patch.parameters.values()} == {half_suspect.dtype}
    assert all(0 < moved.norm() < 2 * patch.originals[name].norm() for name, moved in patch.differences().items())
