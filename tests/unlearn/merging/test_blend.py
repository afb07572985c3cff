"""The blend: its weights by the formula, its gradient against automatic differentiation, a factor a channel."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bdaudit.models.suspect import Suspect
from bdaudit.unlearn.merging.blend import Blend, parameters_of, places

TO_V = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v.weight"
NAMES = (TO_V, "unet.conv_in.weight", "unet.conv_in.bias", "text_encoder.encoder.layers.0.mlp.fc1.weight")


def vectors(suspect: Suspect) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    own = {name: p for name, p in parameters_of(suspect).items() if name in NAMES}
    assert len(own) == len(NAMES)
    first = {name: torch.randn(p.shape, generator=generator) * 0.05 for name, p in own.items()}
    return [first, {TO_V: torch.randn(own[TO_V].shape, generator=generator) * 0.05}]


@pytest.fixture
def blend(fresh_suspect: Suspect, tiny_suspect: Suspect) -> Blend:
    return Blend(fresh_suspect, tiny_suspect, vectors(tiny_suspect), scale=0.3)


def test_tensors_of_one_layer_share_their_channels(blend: Blend) -> None:
    assert blend.places["unet.conv_in.weight"] == blend.places["unet.conv_in.bias"]
    assert blend.channels == 8 + 8 + 16
    found = places({"a.weight": torch.zeros(3, 2), "b.weight": torch.zeros(2, 2), "b.bias": torch.zeros(2), "b.table": torch.zeros(4)})
    assert found == {"a.weight": slice(0, 3), "b.weight": slice(3, 5), "b.bias": slice(3, 5), "b.table": slice(5, 9)}


def test_the_weights_by_the_formula(blend: Blend) -> None:
    factors = torch.rand(2, blend.channels, generator=torch.Generator().manual_seed(1))
    blend.put(factors)
    first, second = blend.vectors
    at = blend.places[TO_V]
    expected = blend.base[TO_V] + 0.3 * (factors[0, at, None] * first[TO_V] + factors[1, at, None] * second[TO_V])
    assert torch.allclose(blend.parameters[TO_V], expected, atol=1e-7)
    bias = "unet.conv_in.bias"
    assert torch.allclose(blend.parameters[bias], blend.base[bias] + 0.3 * factors[0, blend.places[bias]] * first[bias], atol=1e-7)
    difference = blend.difference()
    blend.put_difference({})
    assert all(torch.equal(p, blend.base[name]) for name, p in blend.parameters.items())
    blend.put_difference(difference)
    assert torch.allclose(blend.parameters[TO_V], expected, atol=1e-6)


def test_the_gradient_is_that_of_the_factors(blend: Blend) -> None:
    factors = torch.rand(2, blend.channels, generator=torch.Generator().manual_seed(1), requires_grad=True)
    weights: dict[str, Any] = {}
    for name in NAMES:
        held = [(factors[i, blend.places[name]], v[name]) for i, v in enumerate(blend.vectors) if name in v]
        weights[name] = blend.base[name] + 0.3 * sum(own.view(-1, *[1] * (tensor.dim() - 1)) * tensor for own, tensor in held)
    (expected,) = torch.autograd.grad(sum(w.sin().sum() for w in weights.values()), [factors])
    with blend.trained(factors.detach()):
        loss = sum((p.sin().sum() for p in blend.parameters.values()), torch.zeros(()))
        loss.backward()
        found = blend.gradient()
    assert torch.allclose(found, expected, atol=1e-6)
    assert all(p.grad is None and not p.requires_grad for p in blend.parameters.values())


def test_the_base_stays_as_it_is(blend: Blend, tiny_suspect: Suspect) -> None:
    before = {name: p.clone() for name, p in parameters_of(tiny_suspect).items()}
    blend.put(torch.ones(2, blend.channels))
    assert blend.speaks
    assert all(torch.equal(p, before[name]) for name, p in parameters_of(tiny_suspect).items())
