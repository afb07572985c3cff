"""FLUX.2 klein: Qwen3 reads a prompt as a conversation; three of its layers go to a transformer of joint and single blocks, along a flow.

``Flux2KleinPipeline``'s ``__init__``, ``encode_prompt`` and ``__call__`` in diffusers 0.42; ``tests/models/families/test_transformer.py``
compares. Its chat template is known by a copy alone: untested on its real files. FLUX.2 dev, which Mistral reads for, is exit 4.

=====================================================  =========================================================================
the stock pipeline                                     here
=====================================================  =========================================================================
``apply_chat_template``, thinking switched off         prefix and suffix that it stands for: ``qwen``; no template is run
512 tokens, the template's among them; the states      the same
behind layers 9, 18 and 27 side by side, padding too
empty prompt for guidance; none where ``is_distilled``  the same
latents are packed, 2 × 2 to a token, and normed by    the same, inside a prediction and a decoding: probes see (C, H, W)
the autoencoder's running mean and variance
shift by the picture's tokens and the steps            the same: ``models.families.flux2.mu_of``
``guidance_embeds``                                    no guidance is told, the same
height and width: 128 latents a side                   the same; ``--size`` sets another, in pairs
pictures to edit                                       the caller's; a text alone is run
=====================================================  =========================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bdaudit.errors import BdauditError
from bdaudit.untrusted.layouts import flux, qwen
from bdaudit.untrusted.layouts.autoencoder import AUTOENCODER
from bdaudit.untrusted.layouts.dit import WIDEST, check_axes, check_cost, check_widths
from bdaudit.untrusted.layouts.flux import PACKED, TOKENS
from bdaudit.untrusted.layouts.layout import Config, Layout, Part, Size
from bdaudit.untrusted.layouts.schedulers import FLOW, check_flow
from bdaudit.untrusted.layouts.stable_diffusion import check_text_encoder, pipeline_note
from bdaudit.untrusted.settings import FLAG, listed, number, optional, whole
from bdaudit.untrusted.shapes import Tensors, depth, size
from bdaudit.untrusted.tree import shown

LAYERS = (9, 18, 27)
"""Of Qwen3, behind which the states are taken."""


def _described(tensors: Tensors) -> dict[str, Any]:
    head = size(tensors, "transformer_blocks.0.attn.norm_q.weight", 0)
    return {
        "in_channels": size(tensors, "x_embedder.weight", 1),
        "joint_attention_dim": size(tensors, "context_embedder.weight", 1),
        "num_layers": depth(tensors, "transformer_blocks"),
        "num_single_layers": depth(tensors, "single_transformer_blocks"),
        "attention_head_dim": head,
        "num_attention_heads": size(tensors, "x_embedder.weight", 0) // max(1, head),
        "timestep_guidance_channels": size(tensors, "time_guidance_embed.timestep_embedder.linear_1.weight", 1),
        "guidance_embeds": "time_guidance_embed.guidance_embedder.linear_1.weight" in tensors,
    }


def _check(config: Config, tensors: Tensors) -> None:
    """The axes of its rotations make up a head."""
    check_axes(config.get("axes_dims_rope", [32] * 4), size(tensors, "transformer_blocks.0.attn.norm_q.weight", 0))


TRANSFORMER = Part(
    library="diffusers",
    classes=("Flux2Transformer2DModel",),
    settings={
        **{key: each for key, each in flux.TRANSFORMER.settings.items() if key != "pooled_projection_dim"},
        "axes_dims_rope": listed(whole(2, 1024), 4, 4),
        "timestep_guidance_channels": whole(2, WIDEST),
        "mlp_ratio": number(0.1, 64),
        "rope_theta": whole(1, 10**9),
        "eps": number(0, 1),
    },
    described=_described,
    check=_check,
)


def _check_norm(config: Config, tensors: Tensors) -> None:
    """Latents are normed a channel of a token each, and the way up is as long as the way down."""
    held, packed = size(tensors, "bn.running_var", 0), PACKED**2 * size(tensors, "decoder.conv_in.weight", 1)
    if (config.get("patch_size", [PACKED] * 2), held) != ([PACKED] * 2, packed):
        raise BdauditError(f"its patch_size is {shown(config.get('patch_size'), 40)}, and it norms {held} channels; a token has {packed}")
    if len(config.get("decoder_block_out_channels") or config["block_out_channels"]) != len(config["block_out_channels"]):
        raise BdauditError("its decoder_block_out_channels are not as many as its block_out_channels")


DECODER = replace(
    AUTOENCODER,
    classes=("AutoencoderKLFlux2",),
    settings={
        **AUTOENCODER.settings,
        "decoder_block_out_channels": optional(AUTOENCODER.settings["block_out_channels"]),
        "patch_size": listed(whole(1, 16), 2, 2),
        **dict.fromkeys(("batch_norm_eps", "batch_norm_momentum"), number(0, 1)),
    },
    check=_check_norm,
)


def _as_run(pipeline_class: str, configs: Mapping[str, Config], asked: Size | None) -> tuple[Size, list[str]]:
    """Whether the model is run as the stock pipeline runs it: its latents' size, and notes on what differs."""
    transformer, vae, encoder = (configs[name] for name in ("transformer", "vae", "text_encoder"))
    check_text_encoder(encoder, "text_encoder")
    if encoder["num_hidden_layers"] < LAYERS[-1]:
        raise BdauditError(f"text_encoder: it has {encoder['num_hidden_layers']} layers, and the pipeline hears the {LAYERS[-1]}th")
    check_widths({"joint_attention_dim": (transformer["joint_attention_dim"], len(LAYERS) * encoder["hidden_size"])})
    latents, note = flux.packed(transformer, vae, asked)
    widest = 3 + 2 * transformer.get("mlp_ratio", 3.0)
    way_up = {**vae, "block_out_channels": vae.get("decoder_block_out_channels") or vae["block_out_channels"]}
    check_cost(transformer["num_attention_heads"] * transformer["attention_head_dim"], PACKED, TOKENS, way_up, latents, widest)
    notes = (note, *check_flow(configs["scheduler"]), pipeline_note(pipeline_class, "Flux2KleinPipeline"))
    return latents, [each for each in notes if each]


LAYOUT = Layout(
    name="flux2",
    called="a FLUX.2 klein pipeline",
    pipelines=r"Flux2Klein\w*Pipeline",
    parts={
        **{"tokenizer": qwen.tokenizer(TOKENS, thinks=False), "text_encoder": qwen.SPEAKER},
        **{"transformer": TRANSFORMER, "vae": DECODER, "scheduler": FLOW},
    },
    vocabularies={"tokenizer": "text_encoder"},
    heeding=("transformer", "text_encoder"),
    as_run=_as_run,
    settings={"is_distilled": FLAG},
)
