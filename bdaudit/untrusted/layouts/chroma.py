"""Chroma: T5's states alone go to a transformer of FLUX.1's joint and single blocks, whose modulation hears no text, along a flow.

``ChromaPipeline``'s ``__init__``, ``encode_prompt`` and ``__call__`` in diffusers 0.42; ``tests/models/families/test_transformer.py``
compares.

=====================================================  =========================================================================
the stock pipeline                                     here
=====================================================  =========================================================================
512 tokens of T5; padding is masked, but for the       the same
first place of it
empty prompt for guidance, in a pass of its own        the same, in one batch with the prompt
latents, timesteps, shift, size                        as of FLUX.1
``negative_prompt``, IP-Adapter                        the caller's, off by default
=====================================================  =========================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bdaudit.untrusted.layouts import flux, t5
from bdaudit.untrusted.layouts.autoencoder import AUTOENCODER
from bdaudit.untrusted.layouts.dit import DEEPEST, WIDEST, check_cost, check_widths
from bdaudit.untrusted.layouts.flux import PACKED, TOKENS
from bdaudit.untrusted.layouts.layout import Config, Layout, Part, Size
from bdaudit.untrusted.layouts.schedulers import FLOW, check_flow
from bdaudit.untrusted.layouts.stable_diffusion import pipeline_note
from bdaudit.untrusted.settings import whole
from bdaudit.untrusted.shapes import Tensors, depth, size


def _described(tensors: Tensors) -> dict[str, Any]:
    head = size(tensors, "transformer_blocks.0.attn.norm_q.weight", 0)
    return {
        "in_channels": size(tensors, "x_embedder.weight", 1),
        "joint_attention_dim": size(tensors, "context_embedder.weight", 1),
        "num_layers": depth(tensors, "transformer_blocks"),
        "num_single_layers": depth(tensors, "single_transformer_blocks"),
        "attention_head_dim": head,
        "num_attention_heads": size(tensors, "x_embedder.weight", 0) // max(1, head),
        "approximator_num_channels": size(tensors, "distilled_guidance_layer.in_proj.weight", 1),
        "approximator_hidden_dim": size(tensors, "distilled_guidance_layer.in_proj.weight", 0),
        "approximator_layers": depth(tensors, "distilled_guidance_layer.layers"),
    }


TRANSFORMER = Part(
    library="diffusers",
    classes=("ChromaTransformer2DModel",),
    settings={
        **{key: each for key, each in flux.TRANSFORMER.settings.items() if key not in ("guidance_embeds", "pooled_projection_dim")},
        "approximator_num_channels": whole(4, WIDEST),
        "approximator_hidden_dim": whole(1, WIDEST),
        "approximator_layers": whole(1, DEEPEST),
    },
    described=_described,
    check=flux.TRANSFORMER.check,
)


def _as_run(pipeline_class: str, configs: Mapping[str, Config], asked: Size | None) -> tuple[Size, list[str]]:
    """Whether the model is run as the stock pipeline runs it: its latents' size, and notes on what differs."""
    transformer, vae, encoder = (configs[name] for name in ("transformer", "vae", "text_encoder"))
    check_widths({"joint_attention_dim": (transformer["joint_attention_dim"], encoder["d_model"])})
    latents, note = flux.packed(transformer, vae, asked)
    check_cost(transformer["num_attention_heads"] * transformer["attention_head_dim"], PACKED, TOKENS, vae, latents)
    notes = (note, *check_flow(configs["scheduler"]), pipeline_note(pipeline_class, "ChromaPipeline"))
    return latents, [each for each in notes if each]


LAYOUT = Layout(
    name="chroma",
    called="a Chroma pipeline",
    pipelines=r"Chroma\w*Pipeline",
    parts={
        **{"tokenizer": t5.tokenizer(TOKENS), "text_encoder": t5.ENCODER},
        **{"transformer": TRANSFORMER, "vae": AUTOENCODER, "scheduler": FLOW},
    },
    vocabularies={"tokenizer": "text_encoder"},
    heeding=("transformer", "text_encoder"),
    as_run=_as_run,
)
