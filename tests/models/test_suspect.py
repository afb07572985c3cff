"""The loaded model: batches, seeds, a GPU that runs out of memory, and the 16-bit block that training needs."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bdaudit.errors import BdauditError
from bdaudit.models.decoder import Autoencoder
from bdaudit.models.suspect import Suspect
from tests.small import PROMPTS, with_parts


def crowded(suspect: Suspect, room: int, batch_size: int) -> Suspect:
    """The same model on a device that runs out of memory at the end of a pass of more than ``room`` latents."""
    unet = copy.deepcopy(suspect.denoiser.module)
    whole = unet.forward

    def forward(latents: Tensor, *args: Any, **options: Any) -> Any:
        out = whole(latents, *args, **options)
        if len(latents) > room:
            raise torch.cuda.OutOfMemoryError("no room")
        return out

    unet.forward = forward
    return with_parts(suspect, unet=unet, batch_size=batch_size)


def test_batches_do_not_matter(tiny_suspect: Suspect) -> None:
    z, t, states = tiny_suspect.noise(range(4)), torch.tensor([999, 500, 20, 0]), tiny_suspect.encode(PROMPTS)
    whole = tiny_suspect.predict_batched(z, t, states)
    parts = replace(tiny_suspect, batch_size=3).predict_batched(z, t, states)
    assert torch.allclose(whole, parts, atol=1e-5)
    assert torch.allclose(replace(tiny_suspect, batch_size=1).encode(PROMPTS).states, states.states, atol=1e-5)


def test_batches_are_even_so_that_none_is_nearly_empty(tiny_suspect: Suspect) -> None:
    suspect, sizes = replace(tiny_suspect, batch_size=8), []
    whole = suspect.predict
    suspect.predict = lambda z, t, heard, scale: (sizes.append(len(z)), whole(z, t, heard, scale))[1]  # type: ignore[method-assign]
    suspect.predict_batched(suspect.noise(range(9)), torch.full((9,), 9), suspect.encode(["a"] * 9))
    suspect.predict_batched(suspect.noise(range(8)), torch.full((8,), 9), suspect.encode(["a"] * 8))
    assert sizes == [5, 4, 8]


def test_memory_that_runs_out_halves_the_batch_for_good(tiny_suspect: Suspect) -> None:
    z, t, states = tiny_suspect.noise(range(4)), torch.tensor([999, 500, 20, 0]), tiny_suspect.encode(PROMPTS)
    suspect = crowded(tiny_suspect, room=1, batch_size=4)
    assert torch.allclose(suspect.predict_batched(z, t, states), tiny_suspect.predict_batched(z, t, states), atol=1e-5)
    assert suspect.batch_size == 1


def test_memory_that_does_not_hold_one_is_an_error(tiny_suspect: Suspect) -> None:
    suspect = crowded(tiny_suspect, room=0, batch_size=4)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        suspect.predict_batched(tiny_suspect.noise([0]), torch.tensor([5]), tiny_suspect.encode(["a"]))


@pytest.mark.parametrize("part", ["unet", "vae"])
def test_what_is_not_finite_is_an_error_and_no_figure(tiny_suspect: Suspect, part: str) -> None:
    module: Any = copy.deepcopy(tiny_suspect.modules[part])
    bias = module.conv_out.bias if part == "unet" else module.decoder.conv_out.bias
    bias.data[0] = float("nan")
    half: dict[str, Any] = {"unet": module, "dtype": torch.float16}
    broken = with_parts(tiny_suspect, **half) if part == "unet" else replace(tiny_suspect, decoder=Autoencoder(module, "vae"))
    z = broken.noise([1]).float()
    with pytest.raises(BdauditError, match="NaN or infinity in it, in ") as found:
        broken.predict_batched(z, torch.tensor([500]), broken.encode(PROMPTS[:1])) if part == "unet" else broken.decode(z)
    assert ("--dtype float32" in str(found.value)) is (part == "unet")


def test_noise_follows_from_its_seed(tiny_suspect: Suspect) -> None:
    assert torch.equal(tiny_suspect.noise([7, 8])[1], tiny_suspect.noise([8])[0])
    assert not torch.equal(tiny_suspect.noise([7]), tiny_suspect.noise([8]))
    assert tiny_suspect.noise([7]).shape == (1, *tiny_suspect.denoiser.latent_shape) == (1, 4, 4, 4)


def test_forward_passes_are_counted_by_latents(tiny_suspect: Suspect) -> None:
    suspect = replace(tiny_suspect, forward_passes=0, batch_size=3)
    suspect.predict_batched(suspect.noise(range(4)), torch.full((4,), 9), suspect.encode(PROMPTS))
    assert suspect.forward_passes == 4


def test_decoded_pictures_are_those_of_the_stock_pipeline(tiny_suspect: Suspect) -> None:
    latents = tiny_suspect.noise([1, 2, 3])
    mine = tiny_suspect.decode(latents)
    vae: Any = tiny_suspect.decoder.module
    stock = vae.decode(latents / vae.config.scaling_factor).sample
    assert torch.allclose(mine, (stock / 2 + 0.5).clamp(0, 1), atol=1e-5)


def test_mixed_precision_sees_weights_that_are_exchanged_within_it(half_suspect: Suspect) -> None:
    layer = nn.Linear(4, 4, bias=False)
    one, two = torch.eye(4), 3 * torch.eye(4)
    with half_suspect.mixed_precision():
        layer.weight.data = one
        with torch.no_grad():
            first = layer(torch.ones(1, 4))
        layer.weight.data = two
        second = layer(torch.ones(1, 4))
    assert first.dtype == torch.bfloat16
    assert (second / first).tolist() == [[3, 3, 3, 3]]


def test_mixed_precision_does_nothing_to_a_float32_model(tiny_suspect: Suspect) -> None:
    with tiny_suspect.mixed_precision():
        assert nn.Linear(4, 4)(torch.ones(1, 4)).dtype == torch.float32
