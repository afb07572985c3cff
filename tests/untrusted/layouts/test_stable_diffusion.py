"""What the settings combine to is bounded, whatever each of them may be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bdaudit.errors import BdauditError
from bdaudit.untrusted.inspect import inspect
from bdaudit.untrusted.layouts import autoencoder, unet
from bdaudit.untrusted.layouts.stable_diffusion import check_cost
from tests.untrusted import tiny
from tests.untrusted.edits import change

UNET = {"block_out_channels": [320, 640, 1280, 1280], "attention_head_dim": 8}
VAE = {"block_out_channels": [128, 256, 512, 512]}


def test_the_largest_value_of_a_stock_model() -> None:
    assert unet.largest(UNET, 77, (64, 64)) == 8 * 77 * 64 * 64, "the attention of 64 × 64 pixels to 77 tokens, 8 times"
    assert unet.largest(UNET | {"attention_head_dim": 1}, 77, (64, 64)) == 320 * 64 * 64
    assert autoencoder.largest(VAE, (64, 64)) == 256 * 512 * 512, "the last but one block, its output at the picture's size"
    assert autoencoder.largest({"block_out_channels": [8]}, (64, 32)) == 8 * 64 * 32


def test_heads_and_padding_count() -> None:
    assert unet.largest(UNET | {"num_attention_heads": 16_384}, 77, (64, 64)) == 16_384 * 77 * 64 * 64
    assert unet.largest({"block_out_channels": [1, 1], "attention_head_dim": [1, 100], "downsample_padding": 8}, 2, (4, 4)) == 200 * 10 * 10


def test_every_size_that_can_be_asked_of_a_stock_model_is_affordable() -> None:
    check_cost(UNET, VAE, 77, (256, 256))
    assert autoencoder.largest(VAE, (256, 256)) == 1 << 30


@pytest.mark.parametrize(
    ("unet_config", "vae", "said"),
    [
        (UNET, {"block_out_channels": [1] * 8 + [1]}, "vae"),
        (UNET, {"block_out_channels": [128, 257, 512, 512]}, "vae"),
        (UNET | {"num_attention_heads": 16_384}, VAE, "unet"),
        (UNET | {"block_out_channels": [16_385]}, VAE, "unet"),
    ],
)
def test_what_costs_more_is_refused(unet_config: dict[str, Any], vae: dict[str, Any], said: str) -> None:
    with pytest.raises(BdauditError, match=rf"^{said}: a latent of 256 × 256 becomes .* GB .* expected at most 4\.3 GB"):
        check_cost(unet_config, vae, 77, (256, 256))


def test_the_widths_are_those_of_the_weights(tmp_path: Path) -> None:
    """A config that leaves a setting out costs what its weights say."""
    model = tiny.write_model(tmp_path / "model")
    change("unet/config.json", num_attention_heads=16_384, sample_size=256)(model, tmp_path)
    with pytest.raises(BdauditError, match="unet: a latent of 256 × 256 becomes 34"):
        inspect(model)
