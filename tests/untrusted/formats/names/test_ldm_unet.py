"""CompVis' UNet names: diffusers' own converter is the oracle, at the sizes that were published and at small ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bdaudit.errors import BdauditError
from bdaudit.untrusted.formats.names import ldm_unet
from bdaudit.untrusted.formats.names.renaming import Source

PREFIX = "model.diffusion_model."
SD1: dict[str, Any] = {"block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 768, "attention_head_dim": 8}
SDXL: dict[str, Any] = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
SMALL: dict[str, Any] = {
    "block_out_channels": (32, 64),
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "cross_attention_dim": 16,
}


def unet(config: dict[str, Any]) -> Any:
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        return UNet2DConditionModel(**config)


@pytest.mark.parametrize("config", [SD1, SD1 | {"use_linear_projection": True}, SDXL, SMALL], ids=["SD1", "SD2", "SDXL", "small"])
def test_the_names_are_those_of_diffusers_converter(config: dict[str, Any]) -> None:
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    model = unet(config)
    tensors = model.state_dict()
    sources = ldm_unet.sources_in_part(tensors)
    assert sources.keys() == tensors.keys()
    file = {PREFIX + source.name: tensors[name] for name, source in sources.items()}
    assert len(file) == len(tensors)
    converted = convert_ldm_unet_checkpoint(dict(file), dict(model.config))
    assert converted.keys() == tensors.keys()
    assert all(converted[name] is tensors[name] for name in tensors)
    assert ldm_unet.sources_in_file([source.name for source in sources.values()]) == sources


def test_the_order_of_the_names_says_nothing() -> None:
    names = [source.name for source in ldm_unet.sources_in_part(unet(SDXL).state_dict()).values()]
    assert ldm_unet.sources_in_file(reversed(names)) == ldm_unet.sources_in_file(names)


def test_names_that_are_none_have_no_place() -> None:
    names = [source.name for source in ldm_unet.sources_in_part(unet(SMALL).state_dict()).values()]
    odd = ("input_blocks.1.0.in_layers.1.weight", "input_blocks.99.weight", "more.weight", "input_blocks", "")
    assert ldm_unet.sources_in_file([*names, *odd]) == ldm_unet.sources_in_file(names)


def test_a_plain_tensor_by_its_name() -> None:
    names = [
        "input_blocks.0.0.weight",
        "input_blocks.1.0.in_layers.2.weight",
        "input_blocks.1.1.norm.bias",
        "output_blocks.0.0.out_layers.3.bias",
    ]
    assert ldm_unet.sources_in_file(names) == {
        "conv_in.weight": Source(names[0]),
        "down_blocks.0.resnets.0.conv1.weight": Source(names[1]),
        "down_blocks.0.attentions.0.norm.bias": Source(names[2]),
        "up_blocks.0.resnets.0.conv2.bias": Source(names[3]),
    }


@pytest.mark.parametrize("way", ["input", "output"])
def test_more_layers_than_any_unet_has(way: str) -> None:
    assert ldm_unet.blocks_of_file([f"{way}_blocks.64.0.in_layers.0.weight"])
    with pytest.raises(BdauditError, match="more layers than any UNet has"):
        ldm_unet.blocks_of_file([f"{way}_blocks.65.0.in_layers.0.weight"])
