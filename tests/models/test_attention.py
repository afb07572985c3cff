"""Recordings: true, apart from one another, and leaving no trace in the model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bdaudit.models.attention import Site, recorded, token_share
from bdaudit.models.conditioning import Conditioning
from bdaudit.models.suspect import Suspect


def inputs(suspect: Suspect, texts: tuple[str, ...] = ("a red cat", "the sea")) -> tuple[Tensor, Tensor, Conditioning]:
    return suspect.noise(range(len(texts))), torch.tensor([700, 20])[: len(texts)], suspect.encode(texts)


def test_recording_leaves_the_prediction_alone(tiny_suspect: Suspect) -> None:
    arguments = inputs(tiny_suspect)
    fused = tiny_suspect.predict_batched(*arguments)
    with recorded(tiny_suspect.denoiser.sites()) as recording:
        recorded_too = tiny_suspect.predict_batched(*arguments)
    assert recording.maps
    assert torch.equal(fused, recorded_too)


def test_maps_are_distributions_over_tokens(tiny_suspect: Suspect) -> None:
    with recorded(tiny_suspect.denoiser.sites()) as recording:
        tiny_suspect.predict_batched(*inputs(tiny_suspect))
    (maps,) = recording.latest().values()
    assert maps.shape == (2, 16, 77)
    assert torch.allclose(maps.sum(-1), torch.ones(2, 16), atol=1e-5)


def test_a_map_is_softmax_of_query_times_key(tiny_suspect: Suspect) -> None:
    (layer,) = [site.module for site in tiny_suspect.denoiser.sites().values()]
    seen: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    z, t, heard = inputs(tiny_suspect)
    with recorded(tiny_suspect.denoiser.sites()) as recording:
        tiny_suspect.predict_batched(z, t, heard)
    hook.remove()
    heads = layer.heads
    query = layer.to_q(seen[0]).unflatten(-1, (heads, -1)).transpose(1, 2)
    key = layer.to_k(heard.states).unflatten(-1, (heads, -1)).transpose(1, 2)
    wanted = (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(-1).mean(1)
    assert torch.allclose(recording.latest().popitem()[1], wanted, atol=1e-5)


def by_processor(suspect: Suspect, arguments: tuple[Tensor, Tensor, Conditioning]) -> dict[str, Tensor]:
    """The same maps by another way: attention processors that compute softmax(QKᵀ/√d) by hand."""
    found: dict[str, Tensor] = {}

    def by_hand(name: str) -> Any:
        def processor(attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, attention_mask: Any = None, **_: Any) -> Tensor:
            query, key, value = (
                attn.head_to_batch_dim(layer(x))
                for layer, x in ((attn.to_q, hidden_states), (attn.to_k, encoder_hidden_states), (attn.to_v, encoder_hidden_states))
            )
            probabilities = attn.get_attention_scores(query, key, attention_mask)
            found[name] = torch.unflatten(probabilities, 0, (-1, attn.heads)).float().mean(1)
            return attn.to_out[0](attn.batch_to_head_dim(torch.bmm(probabilities, value)))  # type: ignore[no-any-return]

        return processor

    layers: dict[str, Any] = {name: site.module for name, site in suspect.denoiser.sites().items()}
    before = {name: layer.processor for name, layer in layers.items()}
    try:
        for name, layer in layers.items():
            layer.processor = by_hand(name)
        suspect.predict_batched(*arguments)
    finally:
        for name, layer in layers.items():
            layer.processor = before[name]
    return found


def test_a_tap_hears_what_a_processor_computes(tiny_suspect: Suspect) -> None:
    arguments = inputs(tiny_suspect)
    with recorded(tiny_suspect.denoiser.sites()) as recording:
        tiny_suspect.predict_batched(*arguments)
    wanted = by_processor(tiny_suspect, arguments)
    assert recording.latest().keys() == wanted.keys()
    assert all(torch.allclose(maps, wanted[name], atol=1e-5) for name, maps in recording.latest().items())


def test_image_and_text_keys_are_told_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, 7, 4, generator=generator) for _ in range(3))
    whole = (query @ key.transpose(-1, -2) / 2).softmax(-1).mean(1)

    class Joint(torch.nn.Module):
        def forward(self) -> Tensor:
            return torch.nn.functional.scaled_dot_product_attention(query, key, value)

    module = Joint()
    with recorded({"joint": Site(module, lambda q, k: (slice(2, q), slice(0, 2)))}) as recording:
        module()
    assert torch.allclose(recording.latest()["joint"], whole[:, 2:, :2], atol=1e-6)


@pytest.mark.parametrize("boolean", [True, False])
def test_a_mask_counts(boolean: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 1, 3, 4, generator=generator) for _ in range(3))
    there = torch.tensor([True, False, True])
    mask = there if boolean else torch.zeros(3).masked_fill(~there, -torch.inf)

    class Masked(torch.nn.Module):
        def forward(self) -> Tensor:
            return torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask.expand(1, 1, 3, 3))

    module = Masked()
    with recorded({"masked": Site(module)}) as recording:
        module()
    maps = recording.latest()["masked"]
    assert (maps[..., 1] == 0).all()
    assert torch.allclose(maps.sum(-1), torch.ones(1, 3))


def hooks(suspect: Suspect) -> int:
    modules = [site.module for site in suspect.denoiser.sites().values()]
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules)


def test_no_hook_is_left_also_when_the_block_raises(tiny_suspect: Suspect) -> None:
    with recorded(tiny_suspect.denoiser.sites()):
        assert hooks(tiny_suspect) > 0
    assert hooks(tiny_suspect) == 0
    with pytest.raises(RuntimeError, match="inside"), recorded(tiny_suspect.denoiser.sites()):
        raise RuntimeError("inside")
    assert hooks(tiny_suspect) == 0


def test_a_pass_that_fails_leaves_no_mode_behind(tiny_suspect: Suspect) -> None:
    z, t, heard = inputs(tiny_suspect)
    with recorded(tiny_suspect.denoiser.sites()) as recording:
        with pytest.raises(RuntimeError):
            tiny_suspect.predict(z, t, Conditioning(heard.states[..., :3]))
        recording.clear()
    tiny_suspect.predict_batched(z, t, heard)
    assert not recording.maps


def test_two_models_recorded_at_once_stay_apart(tiny_suspect: Suspect, fresh_suspect: Suspect) -> None:
    with torch.no_grad():
        for layer in [site.module for site in fresh_suspect.denoiser.sites().values()]:
            layer.to_q.weight.neg_()
    arguments = inputs(tiny_suspect)
    with recorded(tiny_suspect.denoiser.sites()) as first, recorded(fresh_suspect.denoiser.sites()) as second:
        tiny_suspect.predict_batched(*arguments)
        fresh_suspect.predict_batched(*arguments)
    (a,), (b,) = first.maps.values(), second.maps.values()
    assert len(a) == len(b) == 1
    assert (a[0] - b[0]).abs().max() > 1e-3


def test_a_recording_ends_with_its_block_and_can_be_cleared(tiny_suspect: Suspect) -> None:
    arguments = inputs(tiny_suspect)
    with recorded(tiny_suspect.denoiser.sites()) as recording:
        tiny_suspect.predict_batched(*arguments)
        tiny_suspect.predict_batched(*arguments)
        assert {len(passes) for passes in recording.maps.values()} == {2}
        recording.clear()
        tiny_suspect.predict_batched(*arguments)
    tiny_suspect.predict_batched(*arguments)
    assert {len(passes) for passes in recording.maps.values()} == {1}


def test_a_closed_recording_keeps_nothing(tiny_suspect: Suspect) -> None:
    with recorded(tiny_suspect.denoiser.sites()) as recording:
        tiny_suspect.predict_batched(*inputs(tiny_suspect))
        recording.close()
        tiny_suspect.predict_batched(*inputs(tiny_suspect))
    assert not recording.maps


def test_keep_chooses_layers(tiny_suspect: Suspect) -> None:
    with recorded(tiny_suspect.denoiser.sites(), keep=lambda name: "up_blocks" in name) as recording:
        tiny_suspect.predict_batched(*inputs(tiny_suspect))
    assert not recording.maps


def test_gradient_flows_through_the_maps(fresh_suspect: Suspect) -> None:
    z, t, heard = inputs(fresh_suspect)
    states = heard.states.requires_grad_(True)
    with recorded(fresh_suspect.denoiser.sites()) as recording:
        fresh_suspect.predict(z, t, heard)
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
