"""Recordings: true, apart from one another, and leaving no trace in the model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bdaudit.models.attention import cross_attention_layers, recorded, token_share
from bdaudit.models.suspect import Suspect


def inputs(suspect: Suspect, texts: tuple[str, ...] = ("a red cat", "the sea")) -> tuple[Tensor, Tensor, Tensor]:
    return suspect.noise(range(len(texts))), torch.tensor([700, 20])[: len(texts)], suspect.encode(texts)


def test_recording_leaves_the_prediction_alone(tiny_suspect: Suspect) -> None:
    arguments = inputs(tiny_suspect)
    fused = tiny_suspect.predict_batched(*arguments)
    with recorded(tiny_suspect.unet) as recording:
        by_hand = tiny_suspect.predict_batched(*arguments)
    assert recording.maps
    assert (fused - by_hand).abs().max() < 1e-5 * fused.abs().max()


def test_maps_are_distributions_over_tokens(tiny_suspect: Suspect) -> None:
    with recorded(tiny_suspect.unet) as recording:
        tiny_suspect.predict_batched(*inputs(tiny_suspect))
    (maps,) = recording.latest().values()
    assert maps.shape == (2, 16, 77)
    assert torch.allclose(maps.sum(-1), torch.ones(2, 16), atol=1e-5)


def test_a_map_is_softmax_of_query_times_key(tiny_suspect: Suspect) -> None:
    (layer,) = cross_attention_layers(tiny_suspect.unet).values()
    seen: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    z, t, states = inputs(tiny_suspect)
    with recorded(tiny_suspect.unet) as recording:
        tiny_suspect.predict_batched(z, t, states)
    hook.remove()
    heads = layer.heads
    query = layer.to_q(seen[0]).unflatten(-1, (heads, -1)).transpose(1, 2)
    key = layer.to_k(states).unflatten(-1, (heads, -1)).transpose(1, 2)
    wanted = (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(-1).mean(1)
    assert torch.allclose(recording.latest().popitem()[1], wanted, atol=1e-5)


def test_every_processor_is_the_one_from_before(tiny_suspect: Suspect) -> None:
    before = dict(tiny_suspect.unet.attn_processors)
    with recorded(tiny_suspect.unet):
        during = dict(tiny_suspect.unet.attn_processors)
    after = tiny_suspect.unet.attn_processors
    assert any(during[name] is not before[name] for name in before)
    assert all(after[name] is before[name] for name in before)


def test_also_when_the_block_raises(tiny_suspect: Suspect) -> None:
    before = dict(tiny_suspect.unet.attn_processors)
    with pytest.raises(RuntimeError, match="inside"), recorded(tiny_suspect.unet):
        raise RuntimeError("inside")
    assert all(tiny_suspect.unet.attn_processors[name] is before[name] for name in before)


def test_two_models_recorded_at_once_stay_apart(tiny_suspect: Suspect, fresh_suspect: Suspect) -> None:
    with torch.no_grad():
        for layer in cross_attention_layers(fresh_suspect.unet).values():
            layer.to_q.weight.neg_()
    arguments = inputs(tiny_suspect)
    with recorded(tiny_suspect.unet) as first, recorded(fresh_suspect.unet) as second:
        tiny_suspect.predict_batched(*arguments)
        fresh_suspect.predict_batched(*arguments)
    (a,), (b,) = first.maps.values(), second.maps.values()
    assert len(a) == len(b) == 1
    assert (a[0] - b[0]).abs().max() > 1e-3


def test_a_recording_ends_with_its_block_and_can_be_cleared(tiny_suspect: Suspect) -> None:
    arguments = inputs(tiny_suspect)
    with recorded(tiny_suspect.unet) as recording:
        tiny_suspect.predict_batched(*arguments)
        tiny_suspect.predict_batched(*arguments)
        assert {len(passes) for passes in recording.maps.values()} == {2}
        recording.clear()
        tiny_suspect.predict_batched(*arguments)
    tiny_suspect.predict_batched(*arguments)
    assert {len(passes) for passes in recording.maps.values()} == {1}


def test_a_closed_recording_keeps_nothing(tiny_suspect: Suspect) -> None:
    with recorded(tiny_suspect.unet) as recording:
        tiny_suspect.predict_batched(*inputs(tiny_suspect))
        recording.close()
        tiny_suspect.predict_batched(*inputs(tiny_suspect))
    assert not recording.maps


def test_keep_chooses_layers(tiny_suspect: Suspect) -> None:
    with recorded(tiny_suspect.unet, keep=lambda name: "up_blocks" in name) as recording:
        tiny_suspect.predict_batched(*inputs(tiny_suspect))
    assert not recording.maps


def test_gradient_flows_through_the_maps(fresh_suspect: Suspect) -> None:
    z, t, states = inputs(fresh_suspect)
    states.requires_grad_(True)
    with recorded(fresh_suspect.unet) as recording:
        fresh_suspect.predict(z, t, states)
    (maps,) = recording.latest().values()
    maps[:, :, 1].mean().backward()
    assert states.grad is not None
    assert states.grad.abs().max() > 0


def test_token_share_is_one_over_all_tokens_and_nothing_over_none() -> None:
    maps = torch.rand(3, 16, 5).softmax(-1)
    share = token_share(maps, [range(5), [], [1, 3]])
    assert share[0] == pytest.approx(1, abs=1e-6)
    assert share[1] == 0
    assert share[2] == pytest.approx(float(maps[2][:, 1].mean() + maps[2][:, 3].mean()), abs=1e-6)
