"""Single layers: one that is large among its kind, one that changed alone or farther, and one that changed in one direction."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from bdaudit.scan.weights.layers import layers_apart

GENERATOR = torch.Generator()
FIRST = "blocks.0.to_k.weight"


@pytest.fixture
def module() -> dict[str, Tensor]:
    GENERATOR.manual_seed(0)
    kinds = {"to_k": 0.5, "to_v": 2.0, "conv": 1.0}
    found = {f"blocks.{i}.{kind}.weight": size * _drawn(16, 24) for i in range(20) for kind, size in kinds.items()}
    return found | {"norm.weight": 100 * torch.ones(8), "counts.weight": torch.ones(2, 2, dtype=torch.long)}


def _drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=GENERATOR)


def _tuned(module: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every matrix moved a little, in many directions, each by another size."""
    sizes = {name: 0.01 * float(0.5 + torch.rand(1, generator=GENERATOR)) for name in module}
    return {
        name: tensor + sizes[name] * _drawn(*tensor.shape) if tensor.ndim == 2 and tensor.is_floating_point() else tensor
        for name, tensor in module.items()
    }


def test_a_module_that_nobody_touched_and_a_fine_tune(module: dict[str, Tensor]) -> None:
    assert layers_apart(module) == []
    assert layers_apart(module, module) == []
    assert layers_apart(_tuned(module), module) == []


def test_a_layer_that_is_large_among_its_kind(module: dict[str, Tensor]) -> None:
    (found,) = layers_apart(module | {FIRST: 4 * module[FIRST]})
    assert (found.tensor, found.measure) == (FIRST, "size")
    assert found.value == pytest.approx(2.0, rel=0.1)
    assert found.score > 5


def test_an_edit_of_one_direction(module: dict[str, Tensor]) -> None:
    edit = 1e-3 * torch.outer(_drawn(16), _drawn(24))
    direction, change = layers_apart(module | {FIRST: module[FIRST] + edit}, module)
    assert (direction.tensor, direction.measure, change.tensor, change.measure) == (FIRST, "direction", FIRST, "change")
    assert direction.value == pytest.approx(1, abs=1e-3)
    assert change.value == pytest.approx(float(edit.norm() / module[FIRST].norm()), rel=1e-2)
    assert change.score == 0


@pytest.mark.parametrize(("second", "named"), [(0.25, True), (0.45, False)])
def test_how_much_of_a_change_may_lie_beside_its_direction(module: dict[str, Tensor], second: float, named: bool) -> None:
    """Squares of 1 and of ``second``: 94 % and 83 % in the first."""
    edit = torch.zeros(16, 24)
    edit[0, 0], edit[1, 1] = 1.0, second
    found = layers_apart(module | {FIRST: module[FIRST] + edit}, module)
    assert any(each.measure == "direction" for each in found) == named


def test_a_matrix_of_few_rows_has_no_direction(module: dict[str, Tensor]) -> None:
    for rows, told in ((3, False), (4, True)):
        small = module | {"head.weight": _drawn(rows, 24)}
        moved = small | {"head.weight": small["head.weight"] + torch.outer(torch.ones(rows), torch.ones(24))}
        assert any(each.measure == "direction" for each in layers_apart(moved, small)) == told


def test_a_layer_that_moved_farther_than_the_others(module: dict[str, Tensor]) -> None:
    tuned = _tuned(module)
    (found,) = layers_apart(tuned | {FIRST: module[FIRST] + 0.5 * _drawn(16, 24)}, module)
    assert (found.tensor, found.measure) == (FIRST, "change")
    assert found.score > 5


@pytest.mark.parametrize("size", [1e25, 3e38])
def test_a_layer_whose_squares_float32_has_no_room_for_is_named_and_ends_nothing(module: dict[str, Tensor], size: float) -> None:
    huge = module | {FIRST: torch.full((16, 24), size)}
    (found,) = layers_apart(huge)
    assert (found.tensor, found.measure, found.value) == (FIRST, "size", pytest.approx(size))
    beside = layers_apart(huge, module)
    assert {(FIRST, measure) for measure in ("size", "change", "direction")} <= {(each.tensor, each.measure) for each in beside}
    assert all(
        math.isfinite(each.value) and math.isfinite(each.score) for each in beside + layers_apart(huge, module | {FIRST: -huge[FIRST]})
    )
    assert layers_apart({}) == []
