"""Each kind of adapter against its published formula written out in numpy, and what does not make the weight."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from bdaudit.errors import BdauditError, InconclusiveError
from bdaudit.models.adapter_products import dora, measured_axis, product

LINEAR, CONV = torch.Size((6, 4)), torch.Size((6, 4, 3, 3))
RNG = np.random.default_rng(0)


def draw(*shape: int) -> Tensor:
    return torch.tensor(RNG.standard_normal(shape), dtype=torch.float32)


def close(found: Tensor, wanted: np.ndarray) -> bool:
    return found.shape == wanted.shape and bool(np.allclose(found.numpy(), wanted, atol=1e-5))


def test_lora_and_locon() -> None:
    down, up = draw(2, 4), draw(6, 2)
    found, rank = product({"down": down, "up": up}, LINEAR, "x")
    assert rank == 2
    assert close(found, up.numpy() @ down.numpy())
    wide, one = draw(2, 4, 3, 3), draw(6, 2, 1, 1)
    assert close(product({"down": wide, "up": one}, CONV, "x")[0], np.einsum("or,rikl->oikl", one.numpy()[:, :, 0, 0], wide.numpy()))
    assert close(product({"down": down[:, :, None, None], "up": up[:, :, None, None]}, LINEAR, "x")[0], up.numpy() @ down.numpy())


def test_locon_with_a_core() -> None:
    down, up, mid = draw(3, 4, 1, 1), draw(6, 2, 1, 1), draw(2, 3, 3, 3)
    found, rank = product({"down": down, "up": up, "mid": mid}, CONV, "x")
    assert rank == 3
    assert close(found, np.einsum("or,rskl,si->oikl", up.numpy()[:, :, 0, 0], mid.numpy(), down.numpy()[:, :, 0, 0]))


@pytest.mark.parametrize("shape", [LINEAR, CONV])
def test_loha(shape: torch.Size) -> None:
    a1, a2, b1, b2 = draw(6, 2), draw(6, 2), draw(2, shape[1:].numel()), draw(2, shape[1:].numel())
    found, rank = product({"hada_w1_a": a1, "hada_w1_b": b1, "hada_w2_a": a2, "hada_w2_b": b2}, shape, "x")
    assert rank == 2
    assert close(found, ((a1.numpy() @ b1.numpy()) * (a2.numpy() @ b2.numpy())).reshape(shape))


def test_loha_with_cores() -> None:
    held = {f"hada_w{n}_a": draw(2, 6) for n in (1, 2)} | {f"hada_w{n}_b": draw(2, 4) for n in (1, 2)}
    held |= {f"hada_t{n}": draw(2, 2, 3, 3) for n in (1, 2)}
    halves = [
        np.einsum("ijkl,ip,jr->prkl", held[f"hada_t{n}"].numpy(), held[f"hada_w{n}_a"].numpy(), held[f"hada_w{n}_b"].numpy())
        for n in (1, 2)
    ]
    assert close(product(held, CONV, "x")[0], halves[0] * halves[1])


def test_lokr_whole_and_in_factors() -> None:
    w1, w2 = draw(2, 2), draw(3, 2)
    found, rank = product({"lokr_w1": w1, "lokr_w2": w2}, LINEAR, "x")
    assert rank is None, "alpha has no part in two whole matrices"
    assert close(found, np.kron(w1.numpy(), w2.numpy()))
    a, b = draw(3, 1), draw(1, 2 * 9)
    found, rank = product({"lokr_w1": w1, "lokr_w2_a": a, "lokr_w2_b": b}, CONV, "x")
    assert rank == 1
    kernels = (a.numpy() @ b.numpy()).reshape(3, 2, 3, 3)
    assert close(found, np.einsum("ab,cdkl->acbdkl", w1.numpy(), kernels).reshape(CONV))
    core, left, right = draw(2, 2, 3, 3), draw(2, 3), draw(2, 2)
    found, _ = product({"lokr_w1": w1, "lokr_w2_a": left, "lokr_w2_b": right, "lokr_t2": core}, CONV, "x")
    kernels = np.einsum("ijkl,ip,jr->prkl", core.numpy(), left.numpy(), right.numpy())
    assert close(found, np.einsum("ab,cdkl->acbdkl", w1.numpy(), kernels).reshape(CONV))


@pytest.mark.parametrize("shape", [LINEAR, CONV])
def test_dora_gives_each_output_its_magnitude(shape: torch.Size) -> None:
    weight, delta, magnitude = draw(*shape), draw(*shape), draw(6).abs()
    found = dora(weight, delta, magnitude.view(1, 6, 1, 1), "x")
    moved = (weight + delta).numpy().reshape(6, -1)
    wanted = magnitude.numpy()[:, None] * moved / np.linalg.norm(moved, axis=1, keepdims=True)
    assert close(weight + found, wanted.reshape(shape))
    with pytest.raises(BdauditError, match="expected one for each"):
        dora(weight, delta, magnitude[:5], "x")


def test_a_full_difference_is_itself() -> None:
    difference = draw(*CONV)
    assert torch.equal(product({"diff": difference}, CONV, "x")[0], difference)


HUGE = torch.zeros(1).expand(1 << 40)
"""A tensor that claims a terabyte of products and holds one number."""


@pytest.mark.parametrize(
    ("held", "shape"),
    [
        ({"down": draw(2, 5), "up": draw(6, 2)}, LINEAR),
        ({"down": draw(2, 4), "up": draw(6, 3)}, LINEAR),
        ({"down": draw(2), "up": draw(6, 2)}, LINEAR),
        ({"down": torch.tensor(1.0), "up": torch.tensor(1.0)}, LINEAR),
        ({"down": draw(2, 3, 3, 4), "up": draw(6, 2)}, CONV),  # as many numbers in another order
        ({"down": HUGE.view(1, -1), "up": HUGE.view(-1, 1)}, LINEAR),
        ({"down": draw(3, 4), "up": draw(6, 2), "mid": draw(2, 2, 3, 3)}, CONV),
        ({"down": draw(3, 4), "up": draw(6, 2), "mid": torch.tensor(1.0)}, CONV),
        ({f"hada_w{n}_{k}": HUGE.view(-1, 1) if k == "a" else HUGE.view(1, -1) for n in (1, 2) for k in "ab"}, LINEAR),
        ({"lokr_w1": HUGE.view(1, -1), "lokr_w2": HUGE.view(-1, 1)}, LINEAR),
        ({"lokr_w1": draw(2, 2), "lokr_w1_a": draw(2, 1), "lokr_w1_b": draw(1, 2), "lokr_w2": draw(3, 2)}, LINEAR),
        ({"lokr_w1_a": draw(2, 1), "lokr_w1_b": draw(1, 2), "lokr_w2_a": draw(3, 2), "lokr_w2_b": draw(2, 2)}, LINEAR),  # two ranks
        ({"lokr_w1": torch.tensor(1.0), "lokr_w2": draw(*LINEAR)}, LINEAR),
        ({"lokr_w1": draw(2, 2), "lokr_w2_a": draw(3), "lokr_w2_b": draw(1, 2)}, LINEAR),
        ({"lokr_w1": draw(2, 2), "lokr_w2_a": draw(3, 1), "lokr_w2_b": draw(2)}, LINEAR),
        ({"diff": draw(4, 6)}, LINEAR),
        ({"down": draw(2, 4)}, LINEAR),
        ({"lokr_w1": draw(2, 2)}, LINEAR),
        ({}, LINEAR),
    ],
)
def test_what_does_not_make_the_weight_is_said_before_it_is_multiplied(held: dict[str, Tensor], shape: torch.Size) -> None:
    with pytest.raises(BdauditError, match="layer"):
        product(held, shape, "layer")


def test_two_kinds_in_one_layer_are_not_supported() -> None:
    with pytest.raises(InconclusiveError, match="mixes diff, down, up"):
        product({"down": draw(2, 4), "up": draw(6, 2), "diff": draw(*LINEAR)}, LINEAR, "layer")


def test_lycoris_magnitudes_are_of_the_axis_that_their_shape_says() -> None:
    weight, delta = draw(*CONV), draw(*CONV)
    moved = (weight + delta).numpy()
    for shape, axis in (((6, 1, 1, 1), 0), ((1, 4, 1, 1), 1)):
        magnitude = draw(*shape).abs()
        assert measured_axis(magnitude, CONV, "x") == axis
        norm = np.sqrt((moved**2).sum(axis=(1 - axis, 2, 3), keepdims=True))
        assert close(weight + dora(weight, delta, magnitude, "x", axis), magnitude.numpy() * moved / norm)
    for shape in ((6,), (4, 1, 1, 1), (6, 1), (6, 4, 1, 1), (1, 1, 1, 1)):
        with pytest.raises(BdauditError, match="no magnitude for each output, nor input"):
            measured_axis(draw(*shape), CONV, "x")
