"""diffusers' UNet with cross-attention: its settings, what its weights tell of them, and how large its layers' values are."""

from __future__ import annotations

from typing import Any

from bdaudit.errors import BdauditError
from bdaudit.untrusted.layouts.layout import Config, Part, Size
from bdaudit.untrusted.settings import FLAG, NAME, either, listed, number, optional, whole
from bdaudit.untrusted.shapes import Tensors, counts, numbers, size
from bdaudit.untrusted.tree import shown

MOST_SIDE = 256
"""The largest latent, in its own pixels a side."""
_BLOCKS, _LAYERS, _DEPTH, _WIDTH = 8, 8, 16, 16_384
"""Stable Diffusion has 4 blocks of 2 layers, SDXL attention 10 deep and 1,280 wide."""
_width, _scale = whole(1, _WIDTH), number(1e-4, 1e4)
_widths = either(_width, listed(_width, _BLOCKS))
_depth = either(whole(1, _DEPTH), listed(either(whole(1, _DEPTH), listed(whole(1, _DEPTH), _LAYERS + 1)), _BLOCKS))
_side = whole(1, MOST_SIDE)

SETTINGS = {
    "sample_size": optional(either(_side, listed(_side, 2, 2))),
    "downsample_padding": whole(0, 8),
    "layers_per_block": either(whole(1, _LAYERS), listed(whole(1, _LAYERS), _BLOCKS)),
    "transformer_layers_per_block": _depth,
    "reverse_transformer_layers_per_block": optional(_depth),
    "only_cross_attention": either(FLAG, listed(FLAG, _BLOCKS)),
    "block_out_channels": listed(_width, _BLOCKS),
    "freq_shift": number(0, 1),
    "dropout": number(0, 1),
    "norm_eps": number(0, 1),
    "norm_num_groups": optional(_width),
    "time_embedding_dim": optional(whole(1, 4 * _WIDTH)),
    "addition_embed_type_num_heads": whole(1, 1024),
    **dict.fromkeys(("in_channels", "out_channels"), whole(1, 1024)),
    **dict.fromkeys(("conv_in_kernel", "conv_out_kernel"), whole(1, 31)),
    **dict.fromkeys(("mid_block_scale_factor", "resnet_out_scale_factor"), _scale),
    **dict.fromkeys(("down_block_types", "up_block_types"), listed(NAME, _BLOCKS)),
    **dict.fromkeys(("attention_head_dim", "num_attention_heads", "cross_attention_dim"), optional(_widths)),
    **dict.fromkeys(("act_fn", "time_embedding_type", "resnet_time_scale_shift", "attention_type"), NAME),
    **dict.fromkeys(
        (
            *("mid_block_type", "encoder_hid_dim_type", "class_embed_type", "addition_embed_type", "time_embedding_act_fn"),
            *("timestep_post_act", "cross_attention_norm"),
        ),
        optional(NAME),
    ),
    **dict.fromkeys(
        ("encoder_hid_dim", "addition_time_embed_dim", "num_class_embeds", "time_cond_proj_dim", "projection_class_embeddings_input_dim"),
        optional(_width),
    ),
    **dict.fromkeys(
        (
            *("center_input_sample", "flip_sin_to_cos", "dual_cross_attention", "use_linear_projection", "upcast_attention"),
            *("resnet_skip_time_act", "class_embeddings_concat", "mid_block_only_cross_attention"),
        ),
        FLAG,
    ),
}


def _described(tensors: Tensors) -> dict[str, Any]:
    kernels = {key: size(tensors, f"{key.removesuffix('_kernel')}.weight", 2) for key in ("conv_in_kernel", "conv_out_kernel")}
    told = blocks(tensors, "") | kernels | {"out_channels": size(tensors, "conv_out.weight", 0)}
    contexts = {info.shape[-1:] for name, info in tensors.items() if name.endswith("attn2.to_k.weight")}
    deep = _depths(tensors)
    depths = set(deep.values())
    without = [i for i in range(len(told["block_out_channels"])) if not any(name.startswith(f"down_blocks.{i}.") for name in deep)]
    if len(contexts) == 1 and () not in contexts:
        told["cross_attention_dim"] = contexts.pop()[0]
    if len(depths) == 1 and not without:  # what is said of a block without attention sets nothing
        told["transformer_layers_per_block"] = depths.pop()
    return told


def blocks(tensors: Tensors, prefix: str) -> dict[str, Any]:
    """What the blocks on the way down tell, of a UNet or of an autoencoder's encoder."""
    layers = counts(tensors, rf"({prefix}down_blocks\.\d+)\.resnets\.(\d+)\.")
    names = [f"{prefix}down_blocks.{i}" for i in range(len(layers))]
    return {
        "in_channels": size(tensors, f"{prefix}conv_in.weight", 1),
        "block_out_channels": [size(tensors, f"{name}.resnets.0.conv1.weight", 0) for name in names],
        "layers_per_block": [layers.get(name, 0) for name in names],
    }


def _depths(tensors: Tensors) -> dict[str, int]:
    return counts(tensors, r"(.+)\.transformer_blocks\.(\d+)\.")


def _check_depths(config: Config, tensors: Tensors) -> None:
    """No block is asked to be deeper than the deepest there is."""
    deepest = max(_depths(tensors).values(), default=0)
    for key in ("transformer_layers_per_block", "reverse_transformer_layers_per_block"):
        asked = max(numbers(config.get(key)), default=0)
        if asked > max(1, deepest):
            raise BdauditError(f"its {key} is {shown(asked)}, its weights have {deepest}")


def largest(unet: Config, tokens: int, latents: Size) -> int:
    """Numbers in the largest value of a pass on one latent: a block's output, or the attention of its pixels to ``tokens``."""
    heads = unet.get("num_attention_heads") or unet.get("attention_head_dim") or 8
    most, (height, width) = 0, latents
    for i, channels in enumerate(unet["block_out_channels"]):
        here = heads[min(i, len(heads) - 1)] if isinstance(heads, list) else heads
        most = max(most, height * width * max(channels, here * tokens))
        height, width = (side // 2 + unet.get("downsample_padding", 1) for side in (height, width))
    return most


UNET = Part(library="diffusers", classes=("UNet2DConditionModel",), settings=SETTINGS, described=_described, check=_check_depths)
