"""Qwen-Image: Qwen2.5-VL reads a prompt in the pipeline's own conversation; its states go to a transformer of joint blocks, along a flow.

``QwenImagePipeline``'s ``__init__``, ``encode_prompt`` and ``__call__`` in diffusers 0.42;
``tests/models/families/test_transformer.py`` compares. The conversation is written down in the pipeline, and the tokenizer's chat template
is never run; with the real tokenizer its start has the 34 tokens that are dropped, which is untested on real files.

=====================================================  =========================================================================
the stock pipeline                                     here
=====================================================  =========================================================================
a system's message before each prompt, of which the    the same
first 34 states are dropped; 1024 tokens behind them
texts as long as a batch's longest; its padding is     the same, inside an encoding and a prediction
masked
latents are packed, 2 × 2 to a token                   the same, inside a prediction: probes see (C, H, W)
``true_cfg_scale`` with a negative prompt              the caller's, off by default: no guidance, the same, with a note
dynamic shifting by the picture's tokens, stretched    the same: ``models.schedule.Flow``
to end at ``shift_terminal``
latents times ``latents_std``, plus ``latents_mean``   the same
height and width: 128 latents a side                   the same; ``--size`` sets another, in pairs
``guidance_embeds``, edits' and layers' settings       exit 4
=====================================================  =========================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bdaudit.errors import BdauditError, InconclusiveError
from bdaudit.untrusted.layouts import qwen, qwen_vl
from bdaudit.untrusted.layouts.dit import DEEPEST, WIDEST, check_axes, check_channels, check_cost, check_widths, sized
from bdaudit.untrusted.layouts.flux import PACKED, USUAL
from bdaudit.untrusted.layouts.layout import Config, Layout, Part, Reading, Size
from bdaudit.untrusted.layouts.schedulers import FLOW, check_flow
from bdaudit.untrusted.layouts.stable_diffusion import check_text_encoder, pipeline_note
from bdaudit.untrusted.settings import FLAG, listed, number, optional, whole
from bdaudit.untrusted.shapes import Tensors, depth, size

TOKENS, DROPPED = 1024, 34
SYSTEM = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships of the "
    "objects and background:<|im_end|>\n"
)
READING = Reading(length=TOKENS + DROPPED, prefix=SYSTEM + qwen.USER, suffix=qwen.ASSISTANT, dropped=DROPPED)
_ODD = ("guidance_embeds", "zero_cond_t", "use_additional_t_cond", "use_layer3d_rope")
_CAUSAL = 3
"""Frames that a causal convolution of one picture takes in."""


def _described(tensors: Tensors) -> dict[str, Any]:
    head = size(tensors, "transformer_blocks.0.attn.norm_q.weight", 0)
    return {
        "in_channels": size(tensors, "img_in.weight", 1),
        "joint_attention_dim": size(tensors, "txt_in.weight", 1),
        "num_layers": depth(tensors, "transformer_blocks"),
        "attention_head_dim": head,
        "num_attention_heads": size(tensors, "img_in.weight", 0) // max(1, head),
    }


def _check(config: Config, tensors: Tensors) -> None:
    """The axes of its rotations make up a head."""
    check_axes(config.get("axes_dims_rope", [16, 56, 56]), size(tensors, "transformer_blocks.0.attn.norm_q.weight", 0))


TRANSFORMER = Part(
    library="diffusers",
    classes=("QwenImageTransformer2DModel",),
    settings={
        "patch_size": whole(PACKED, PACKED),
        "axes_dims_rope": listed(whole(2, 1024), 3, 3),
        "out_channels": optional(whole(1, 4096)),
        "num_layers": whole(1, DEEPEST),
        **dict.fromkeys(("in_channels", "num_attention_heads"), whole(1, 4096)),
        **dict.fromkeys(("attention_head_dim", "joint_attention_dim"), whole(1, WIDEST)),
        **dict.fromkeys(_ODD, FLAG),
    },
    idle=frozenset({"pooled_projection_dim"}),
    described=_described,
    check=_check,
)


def _decoded(tensors: Tensors) -> dict[str, Any]:
    return {"z_dim": size(tensors, "decoder.conv_in.weight", 1), "base_dim": size(tensors, "encoder.conv_in.weight", 0)}


def _check_levels(config: Config, tensors: Tensors) -> None:
    """As many halvings as there are between its levels, and a mean and a spread for each channel."""
    levels, halvings = len(config["dim_mult"]), len(config["temperal_downsample"])
    if levels != halvings + 1:
        raise BdauditError(f"its dim_mult has {levels} levels, its temperal_downsample {halvings}; expected one less")
    channels = _decoded(tensors)["z_dim"]
    if (len(config["latents_mean"]), len(config["latents_std"])) != (channels, channels):
        raise BdauditError(f"its latents_mean and latents_std are not of {channels} channels each, as its weights are")


VIDEO_AUTOENCODER = Part(
    library="diffusers",
    classes=("AutoencoderKLQwenImage",),
    settings={
        "dim_mult": listed(whole(1, 64), 8, 1),
        "num_res_blocks": whole(1, 8),
        "attn_scales": listed(number(0, 1e6), 8),
        "temperal_downsample": listed(FLAG, 8),
        "dropout": number(0, 1),
        **dict.fromkeys(("base_dim", "z_dim", "input_channels"), whole(1, 4096)),
        **dict.fromkeys(("latents_mean", "latents_std"), listed(number(-1e4, 1e4), 1024)),
    },
    described=_decoded,
    check=_check_levels,
)


def _as_run(pipeline_class: str, configs: Mapping[str, Config], asked: Size | None) -> tuple[Size, list[str]]:
    """Whether the model is run as the stock pipeline runs it: its latents' size, and notes on what differs."""
    transformer, vae, encoder = (configs[name] for name in ("transformer", "vae", "text_encoder"))
    for config in (encoder, encoder.get("text_config") or {}):
        check_text_encoder(config, "text_encoder")
    odd = [key for key in _ODD if transformer.get(key)]
    if odd:
        raise InconclusiveError(f"transformer/config.json: {odd[0]} is set, as for edits or layers; only text-to-image is supported")
    check_widths({"joint_attention_dim": (transformer["joint_attention_dim"], encoder["hidden_size"])})
    widths = [_CAUSAL * vae["base_dim"] * times for times in vae["dim_mult"]]
    drawn = {"block_out_channels": widths, "latent_channels": vae["z_dim"]}
    check_channels(transformer["in_channels"] // PACKED**2, transformer.get("out_channels") or transformer["in_channels"], drawn)
    latents, note = sized(USUAL, PACKED, drawn, asked)
    width = transformer["num_attention_heads"] * transformer["attention_head_dim"]
    check_cost(width, PACKED, TOKENS, drawn, latents)
    unguided = "pictures are drawn without guidance, as by the pipeline where no negative prompt is given; its card asks for one"
    notes = (note, *check_flow(configs["scheduler"]), unguided, pipeline_note(pipeline_class, "QwenImagePipeline"))
    return latents, [each for each in notes if each]


LAYOUT = Layout(
    name="qwen-image",
    called="a Qwen-Image pipeline",
    pipelines=r"QwenImage(Img2Img|Inpaint)?Pipeline",
    parts={
        **{"tokenizer": replace(qwen.TOKENIZER_OF_BYTES, reading=READING), "text_encoder": qwen_vl.ENCODER},
        **{"transformer": TRANSFORMER, "vae": VIDEO_AUTOENCODER, "scheduler": FLOW},
    },
    vocabularies={"tokenizer": "text_encoder"},
    heeding=("transformer", "text_encoder"),
    as_run=_as_run,
)
