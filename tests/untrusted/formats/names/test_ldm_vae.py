"""CompVis' autoencoder names: diffusers' own converter is the oracle."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bdaudit.errors import BdauditError
from bdaudit.untrusted.formats.names import ldm_vae

PREFIX = "first_stage_model."


def vae(channels: tuple[int, ...], layers: int) -> Any:
    from diffusers import AutoencoderKL

    n = len(channels)
    ways = {"down_block_types": ("DownEncoderBlock2D",) * n, "up_block_types": ("UpDecoderBlock2D",) * n}
    with torch.device("meta"):
        return AutoencoderKL(block_out_channels=channels, layers_per_block=layers, norm_num_groups=8, **ways)


@pytest.mark.parametrize(("channels", "layers"), [((128, 256, 512, 512), 2), ((32, 64, 64), 1)], ids=["as published", "small"])
def test_the_names_are_those_of_diffusers_converter(channels: tuple[int, ...], layers: int) -> None:
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    model = vae(channels, layers)
    tensors = model.state_dict()
    sources = ldm_vae.sources_in_part(tensors)
    assert sources.keys() == tensors.keys()
    file = {PREFIX + source.name: tensors[name] for name, source in sources.items()}
    assert len(file) == len(tensors)
    converted = convert_ldm_vae_checkpoint(dict(file), dict(model.config))
    assert converted.keys() == tensors.keys()
    assert all(converted[name] is tensors[name] for name in tensors)
    assert ldm_vae.sources_in_file([source.name for source in sources.values()]) == sources
    assert {name for name, source in sources.items() if source.flat} == {
        f"{half}.mid_block.attentions.0.{name}.weight" for half in ("encoder", "decoder") for name in ("to_q", "to_k", "to_v", "to_out.0")
    }


def test_more_blocks_than_any_autoencoder_has() -> None:
    assert ldm_vae.depth_of_file(["decoder.up.15.block.0.norm1.weight"]) == (16, 1)
    for name in ("decoder.up.16.block.0.norm1.weight", "encoder.down.0.block.16.conv1.bias"):
        with pytest.raises(BdauditError, match="an autoencoder of"):
            ldm_vae.depth_of_file([name])
