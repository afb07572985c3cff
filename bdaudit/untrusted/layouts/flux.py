"""FLUX.1, dev and schnell: CLIP's pooled vector and T5's states go to a transformer of joint and of single blocks, along a flow.

``FluxPipeline``'s ``__init__``, ``encode_prompt`` and ``__call__`` in diffusers 0.42;
``tests/models/families/test_transformer.py`` compares.

=====================================================  =========================================================================
the stock pipeline                                     here
=====================================================  =========================================================================
CLIP's ``pooler_output``; its states are not heard     the same
512 tokens of T5, padding heard like words             the same; schnell's card asks for 256, which is the caller's to say
``maybe_convert_prompt``                               the same
latents are packed, 2 × 2 to a token                   the same, inside a prediction: probes see (C, H, W)
timesteps / 1000; guidance as an input (dev)           the same; schnell takes none, neither is run twice
``true_cfg_scale``, negative prompts, IP-Adapter       the caller's, off by default
dynamic shifting by the picture's tokens               the same; Euler's steps: ``models.schedule.Flow``
height and width: 128 latents a side                   the same; ``--size`` sets another, in pairs
=====================================================  =========================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bdaudit.untrusted.layouts import t5
from bdaudit.untrusted.layouts.autoencoder import AUTOENCODER
from bdaudit.untrusted.layouts.clip import TOKENIZER, TOWER
from bdaudit.untrusted.layouts.dit import DEEPEST, WIDEST, check_axes, check_channels, check_cost, check_widths, sized
from bdaudit.untrusted.layouts.layout import Config, Layout, Part, Size
from bdaudit.untrusted.layouts.schedulers import FLOW, check_flow
from bdaudit.untrusted.layouts.stable_diffusion import check_text_encoder, pipeline_note
from bdaudit.untrusted.settings import FLAG, listed, optional, whole
from bdaudit.untrusted.shapes import Tensors, depth, size

TOKENS, USUAL = 512, 128
"""Of T5 that the pipeline reads; its latents' side."""
PACKED = 2
"""Latents a side of a token."""


def _described(tensors: Tensors) -> dict[str, Any]:
    told = {
        "in_channels": size(tensors, "x_embedder.weight", 1),
        "joint_attention_dim": size(tensors, "context_embedder.weight", 1),
        "pooled_projection_dim": size(tensors, "time_text_embed.text_embedder.linear_1.weight", 1),
        "num_layers": depth(tensors, "transformer_blocks"),
        "num_single_layers": depth(tensors, "single_transformer_blocks"),
        "attention_head_dim": size(tensors, "transformer_blocks.0.attn.norm_q.weight", 0),
        "guidance_embeds": "time_text_embed.guidance_embedder.linear_1.weight" in tensors,
    }
    return told | {"num_attention_heads": size(tensors, "x_embedder.weight", 0) // max(1, told["attention_head_dim"])}


def _check(config: Config, tensors: Tensors) -> None:
    """The axes of its rotations make up a head."""
    check_axes(config.get("axes_dims_rope", [16, 56, 56]), size(tensors, "transformer_blocks.0.attn.norm_q.weight", 0))


TRANSFORMER = Part(
    library="diffusers",
    classes=("FluxTransformer2DModel",),
    settings={
        "patch_size": whole(1, 1),
        "guidance_embeds": FLAG,
        "axes_dims_rope": listed(whole(2, 1024), 3, 3),
        "out_channels": optional(whole(1, 4096)),
        **dict.fromkeys(("in_channels", "num_attention_heads"), whole(1, 4096)),
        **dict.fromkeys(("num_layers", "num_single_layers"), whole(1, DEEPEST)),
        **dict.fromkeys(("attention_head_dim", "joint_attention_dim", "pooled_projection_dim"), whole(1, WIDEST)),
    },
    described=_described,
    check=_check,
)


def packed(transformer: Config, vae: Config, asked: Size | None) -> tuple[Size, str]:
    """The size of latents that the transformer sees in patches of ``PACKED`` × ``PACKED``, and a note; raises as ``check_channels`` and
    ``sized``."""
    taken, given = transformer["in_channels"], transformer.get("out_channels") or transformer["in_channels"]
    check_channels(taken // PACKED**2, given // PACKED**2, vae)
    return sized(USUAL, PACKED, vae, asked)


def _as_run(pipeline_class: str, configs: Mapping[str, Config], asked: Size | None) -> tuple[Size, list[str]]:
    """Whether the model is run as the stock pipeline runs it: its latents' size, and notes on what differs."""
    transformer, vae, first, second = (configs[name] for name in ("transformer", "vae", "text_encoder", "text_encoder_2"))
    check_text_encoder(first, "text_encoder")
    check_widths({
        "joint_attention_dim": (transformer["joint_attention_dim"], second["d_model"]),
        "pooled_projection_dim": (transformer["pooled_projection_dim"], first["hidden_size"]),
    })  # fmt: skip
    latents, note = packed(transformer, vae, asked)
    width = transformer["num_attention_heads"] * transformer["attention_head_dim"]
    check_cost(width, PACKED, TOKENS, vae, latents)
    notes = (note, *check_flow(configs["scheduler"]), pipeline_note(pipeline_class, "FluxPipeline"))
    return latents, [each for each in notes if each]


LAYOUT = Layout(
    name="flux",
    called="a FLUX.1 pipeline",
    pipelines=r"Flux(?!2)\w*Pipeline",
    parts={
        **{"tokenizer_2": t5.tokenizer(TOKENS), "text_encoder_2": t5.ENCODER, "tokenizer": TOKENIZER, "text_encoder": TOWER},
        **{"transformer": TRANSFORMER, "vae": AUTOENCODER, "scheduler": FLOW},
    },
    vocabularies={"tokenizer_2": "text_encoder_2", "tokenizer": "text_encoder"},
    heeding=("transformer", "text_encoder", "text_encoder_2"),
    as_run=_as_run,
)
