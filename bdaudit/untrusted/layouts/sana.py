"""Sana: Gemma 2 reads a prompt behind an instruction; a transformer hears its states by cross-attention, along a flow.

``SanaPipeline``'s ``__init__``, ``encode_prompt`` and ``__call__`` in diffusers 0.42; ``tests/models/families/test_transformer.py``
compares. Its instruction is the pipeline's own default: untested on real files.

=====================================================  =========================================================================
the stock pipeline                                     here
=====================================================  =========================================================================
lower case, an instruction of some 220 tokens before   the same
each prompt, which 299 tokens of it may follow
the denoiser hears the first token and the last 299    the same
empty prompt for guidance, without the instruction     the same
``clean_caption``                                      the caller's, off by default
timesteps times ``timestep_scale``                     the same
a learned variance beside the prediction               left out, the same
DPM-Solver++ along the flow's noise levels             the same levels, shifted by ``flow_shift``; Euler's steps: ``models.schedule``
1024 pixels, put in the transformer's own bin          the transformer's own size; ``--size`` sets another
``guidance_embeds`` (Sprint)                           exit 4
=====================================================  =========================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bdaudit.errors import BdauditError, InconclusiveError
from bdaudit.untrusted.layouts import gemma
from bdaudit.untrusted.layouts.dit import DEEPEST, WIDEST, check_channels, check_cost, check_widths, sized
from bdaudit.untrusted.layouts.layout import Config, Layout, Part, Reading, Size
from bdaudit.untrusted.layouts.schedulers import FLOW, check_flow
from bdaudit.untrusted.layouts.stable_diffusion import check_text_encoder, pipeline_note
from bdaudit.untrusted.layouts.unet import MOST_SIDE
from bdaudit.untrusted.settings import FLAG, NAME, either, listed, number, optional, whole
from bdaudit.untrusted.shapes import Tensors, depth, size
from bdaudit.untrusted.tree import shown

INSTRUCTION = "\n".join((
    "Given a user prompt, generate an 'Enhanced prompt' that provides detailed visual descriptions suitable for image generation. "
    "Evaluate the level of detail in the user prompt:",
    "- If the prompt is simple, focus on adding specifics about colors, shapes, sizes, textures, and spatial relationships to create vivid "
    "and concrete scenes.",
    "- If the prompt is already detailed, refine and enhance the existing details slightly without overcomplicating.",
    "Here are examples of how to transform or refine prompts:",
    "- User Prompt: A cat sleeping -> Enhanced: A small, fluffy white cat curled up in a round shape, sleeping peacefully on a warm sunny "
    "windowsill, surrounded by pots of blooming red flowers.",
    "- User Prompt: A busy city street -> Enhanced: A bustling city street scene at dusk, featuring glowing street lamps, a diverse crowd "
    "of people in colorful clothing, and a double-decker bus passing by towering glass skyscrapers.",
    "Please generate only the enhanced description for the prompt below and avoid including any additional commentary or evaluations:",
    "User Prompt: ",
))  # fmt: skip
"""The default ``complex_human_instruction``, of NVlabs/Sana's ``Sana_1600M_app.yaml``."""
READING = Reading(length=300, lower=True, prefix=INSTRUCTION, instruction=True)
SOLVER = "DPMSolverMultistepScheduler"
_BLOCKS, _RESIDUAL, _ATTENDING = 8, "ResBlock", "EfficientViTBlock"
_GLU = 8
"""How many times as wide as its block a gated convolution of the autoencoder is, at most."""


def _described(tensors: Tensors) -> dict[str, Any]:
    patch = size(tensors, "patch_embed.proj.weight", 2)
    return {
        "in_channels": size(tensors, "patch_embed.proj.weight", 1),
        "patch_size": patch,
        "out_channels": size(tensors, "proj_out.weight", 0) // max(1, patch**2),
        "caption_channels": size(tensors, "caption_projection.linear_1.weight", 1),
        "cross_attention_dim": size(tensors, "transformer_blocks.0.attn2.to_k.weight", 1),
        "num_layers": depth(tensors, "transformer_blocks"),
    }


def _check(config: Config, tensors: Tensors) -> None:
    """Heads make up the width, those of both kinds of attention."""
    width = size(tensors, "patch_embed.proj.weight", 0)
    own = config.get("num_attention_heads", 70) * config.get("attention_head_dim", 32)
    cross = (config.get("num_cross_attention_heads") or 20) * (config.get("cross_attention_head_dim") or 112)
    if {own, cross, size(tensors, "transformer_blocks.0.attn2.to_k.weight", 1)} != {width}:
        raise BdauditError(f"its heads are {own} and {cross} numbers together, its weights are {width} wide")


TRANSFORMER = Part(
    library="diffusers",
    classes=("SanaTransformer2DModel",),
    settings={
        "sample_size": whole(1, MOST_SIDE),
        "patch_size": whole(1, 16),
        "num_layers": whole(1, DEEPEST),
        "mlp_ratio": number(0.1, 64),
        "interpolation_scale": optional(number(1e-3, 1e3)),
        "qk_norm": optional(NAME),
        "timestep_scale": number(1e-3, 1e4),
        "guidance_embeds_scale": number(0, 1e4),
        **dict.fromkeys(("dropout", "norm_eps"), number(0, 1)),
        **dict.fromkeys(("in_channels", "num_attention_heads"), whole(1, 1024)),
        **dict.fromkeys(("out_channels", "num_cross_attention_heads"), optional(whole(1, 1024))),
        **dict.fromkeys(("attention_head_dim", "caption_channels"), whole(1, WIDEST)),
        **dict.fromkeys(("cross_attention_head_dim", "cross_attention_dim"), optional(whole(1, WIDEST))),
        **dict.fromkeys(("attention_bias", "norm_elementwise_affine", "guidance_embeds"), FLAG),
    },
    described=_described,
    check=_check,
)


def _decoded(tensors: Tensors) -> dict[str, Any]:
    return {"latent_channels": size(tensors, "decoder.conv_in.weight", 1)}


def _kinds(config: Config) -> list[str]:
    """Of the autoencoder's blocks on the way up, one each."""
    kinds, widths = config.get("decoder_block_types", _RESIDUAL), config["decoder_block_out_channels"]
    return list(kinds) if isinstance(kinds, list) else [kinds] * len(widths)


def _check_blocks(config: Config, tensors: Tensors) -> None:
    """The way up is as long as the way down, and each of its blocks is of a known kind."""
    counts = [len(config[f"{way}_block_out_channels"]) for way in ("encoder", "decoder")]
    kinds = _kinds(config)
    if {*counts, len(kinds)} != {counts[0]} or not set(kinds) <= {_RESIDUAL, _ATTENDING}:
        raise BdauditError(f"its encoder has {counts[0]} blocks, its decoder {counts[1]}, of the kinds {shown(kinds, 80)}")


_many = listed(whole(1, 16_384), _BLOCKS, 1)
DEEP_AUTOENCODER = Part(
    library="diffusers",
    classes=("AutoencoderDC",),
    settings={
        "scaling_factor": number(1e-4, 1e4),
        "decoder_conv_act_fn": NAME,
        **dict.fromkeys(("in_channels", "latent_channels", "attention_head_dim"), whole(1, 1024)),
        **dict.fromkeys(("encoder_block_out_channels", "decoder_block_out_channels"), _many),
        **dict.fromkeys(("encoder_layers_per_block", "decoder_layers_per_block"), listed(whole(0, 32), _BLOCKS, 1)),
        **dict.fromkeys(("encoder_qkv_multiscales", "decoder_qkv_multiscales"), listed(listed(whole(1, 31), 4), _BLOCKS, 1)),
        **dict.fromkeys(("encoder_block_types", "decoder_block_types"), either(NAME, listed(NAME, _BLOCKS, 1))),
        **dict.fromkeys(("decoder_norm_types", "decoder_act_fns"), either(NAME, listed(NAME, _BLOCKS, 1))),
        **dict.fromkeys(("upsample_block_type", "downsample_block_type"), NAME),
        **dict.fromkeys(("encoder_out_shortcut", "decoder_in_shortcut"), FLAG),
    },
    described=_decoded,
    check=_check_blocks,
)
SCHEDULER = replace(FLOW, classes=(SOLVER, *FLOW.classes))


def _check_scheduler(config: Config) -> tuple[str, ...]:
    """Whether a flow is walked, at a shift that no picture's size sets: the pipeline tells its scheduler none; notes."""
    if config.get("use_dynamic_shifting"):
        raise InconclusiveError("scheduler: use_dynamic_shifting is set, for which the stock pipeline says no size; it fails on it")
    if config.get("_class_name") != SOLVER:
        return check_flow(config)
    named = [key for key in ("use_karras_sigmas", "use_lu_lambdas", "use_exponential_sigmas", "use_beta_sigmas") if config.get(key)]
    if named or not config.get("use_flow_sigmas") or config.get("prediction_type") != "flow_prediction":
        said = f"it has {named[0]}" if named else "use_flow_sigmas is off, or prediction_type is not flow_prediction"
        raise InconclusiveError(f"scheduler: {said}; only a flow is supported")
    return ()


def _as_run(pipeline_class: str, configs: Mapping[str, Config], asked: Size | None) -> tuple[Size, list[str]]:
    """Whether the model is run as the stock pipeline runs it: its latents' size, and notes on what differs."""
    transformer, vae, encoder = (configs[name] for name in ("transformer", "vae", "text_encoder"))
    check_text_encoder(encoder, "text_encoder")
    if transformer.get("guidance_embeds"):
        raise InconclusiveError("transformer/config.json: guidance_embeds is set, which this pipeline tells nothing; it fails on it")
    check_widths({"caption_channels": (transformer["caption_channels"], encoder["hidden_size"])})
    widths = zip(vae["decoder_block_out_channels"], _kinds(vae), strict=True)
    drawn = {**vae, "block_out_channels": [width * (_GLU if kind == _ATTENDING else 1) for width, kind in widths]}
    gives, latent = transformer["out_channels"], vae["latent_channels"]
    check_channels(transformer["in_channels"], latent if gives == 2 * latent else gives, drawn)
    latents, note = sized(transformer.get("sample_size", 32), transformer["patch_size"], drawn, asked)
    width = transformer.get("num_attention_heads", 70) * transformer.get("attention_head_dim", 32)
    widest = 2 * max(4.0, transformer.get("mlp_ratio", 2.5))
    check_cost(width, transformer["patch_size"], READING.length, drawn, latents, widest)
    notes = (note, *_check_scheduler(configs["scheduler"]), pipeline_note(pipeline_class, "SanaPipeline"))
    return latents, [each for each in notes if each]


LAYOUT = Layout(
    name="sana",
    called="a Sana pipeline",
    pipelines=r"Sana(PAG)?Pipeline",
    parts={
        **{"tokenizer": gemma.tokenizer(READING), "text_encoder": gemma.ENCODER},
        **{"transformer": TRANSFORMER, "vae": DEEP_AUTOENCODER, "scheduler": SCHEDULER},
    },
    vocabularies={"tokenizer": "text_encoder"},
    heeding=("transformer", "text_encoder"),
    as_run=_as_run,
)
