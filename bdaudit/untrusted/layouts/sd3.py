"""Stable Diffusion 3 and 3.5: two CLIPs and T5 read; a transformer mixes text and picture, along a flow.

``StableDiffusion3Pipeline``'s ``__init__``, ``encode_prompt`` and ``__call__`` in diffusers 0.42;
``tests/models/families/test_transformer.py`` compares.

=====================================================  =========================================================================
the stock pipeline                                     here
=====================================================  =========================================================================
both CLIPs' ``hidden_states[-2]``, side by side, with  the same
zeros up to T5's width; T5's states behind them
both CLIPs' projections, side by side                  the same, as the pooled vector
256 tokens of T5, padding heard like words             the same
no third text encoder: zeros in place of its states    the same, in its own length
``prompt_2``, ``prompt_3``, ``clip_skip``              the caller's, off by default: one prompt for all
empty prompt for guidance                              the same, by each encoder
guidance above 1, in one batch of two                  the same
timesteps: ``shift`` (and once more, of the smallest   one shift, Euler's steps: ``models.schedule.Flow``
σ); dynamic shifting only if the caller gives ``mu``   0.5 to 1.15 by the picture's tokens, as the pipeline does
``scaling_factor``, ``shift_factor`` of the VAE        the same
height and width: ``sample_size``                      the same; ``--size`` sets another, in whole patches
skip-layer guidance, IP-Adapter                        the caller's, off by default
=====================================================  =========================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bdaudit.errors import BdauditError
from bdaudit.untrusted.layouts import t5
from bdaudit.untrusted.layouts.autoencoder import AUTOENCODER
from bdaudit.untrusted.layouts.clip import TOKENIZER
from bdaudit.untrusted.layouts.dit import DEEPEST, WIDEST, check_channels, check_cost, check_widths, sized
from bdaudit.untrusted.layouts.layout import Config, Layout, Part, Size
from bdaudit.untrusted.layouts.schedulers import FLOW, check_flow
from bdaudit.untrusted.layouts.sdxl import PROJECTED, check_lengths
from bdaudit.untrusted.layouts.stable_diffusion import check_text_encoder, pipeline_note
from bdaudit.untrusted.layouts.unet import MOST_SIDE
from bdaudit.untrusted.settings import NAME, listed, optional, whole
from bdaudit.untrusted.shapes import Tensors, depth, size
from bdaudit.untrusted.tree import shown

TOKENS = 256
"""Of T5 that the pipeline reads."""


def _described(tensors: Tensors) -> dict[str, Any]:
    patch = size(tensors, "pos_embed.proj.weight", 2)
    return {
        "in_channels": size(tensors, "pos_embed.proj.weight", 1),
        "patch_size": patch,
        "out_channels": size(tensors, "proj_out.weight", 0) // patch**2,
        "caption_projection_dim": size(tensors, "context_embedder.weight", 0),
        "joint_attention_dim": size(tensors, "context_embedder.weight", 1),
        "pooled_projection_dim": size(tensors, "time_text_embed.text_embedder.linear_1.weight", 1),
        "num_layers": depth(tensors, "transformer_blocks"),
        "pos_embed_max_size": round(size(tensors, "pos_embed.pos_embed", 1) ** 0.5),
    }


def _check(config: Config, tensors: Tensors) -> None:
    """Heads make up the width, and the layers that look at the picture alone are those that the config names."""
    width, heads = size(tensors, "pos_embed.proj.weight", 0), config.get("num_attention_heads", 18) * config.get("attention_head_dim", 64)
    if heads != width:
        raise BdauditError(f"its heads are {heads} numbers together, its weights are {width} wide")
    named = sorted(config.get("dual_attention_layers") or [])
    held = [i for i in range(depth(tensors, "transformer_blocks")) if f"transformer_blocks.{i}.attn2.to_q.weight" in tensors]
    if named != held:
        raise BdauditError(f"its dual_attention_layers are {shown(named, 80)}, its weights have {shown(held, 80)}")


TRANSFORMER = Part(
    library="diffusers",
    classes=("SD3Transformer2DModel",),
    settings={
        "sample_size": whole(1, MOST_SIDE),
        "patch_size": whole(1, 16),
        "num_layers": whole(1, DEEPEST),
        "pos_embed_max_size": whole(1, 1024),
        "dual_attention_layers": listed(whole(0, DEEPEST), DEEPEST),
        "qk_norm": optional(NAME),
        **dict.fromkeys(("in_channels", "out_channels", "num_attention_heads"), whole(1, 1024)),
        **dict.fromkeys(
            ("attention_head_dim", "joint_attention_dim", "caption_projection_dim", "pooled_projection_dim"),
            whole(1, WIDEST),
        ),
    },
    described=_described,
    check=_check,
)


def _as_run(pipeline_class: str, configs: Mapping[str, Config], asked: Size | None) -> tuple[Size, list[str]]:
    """Whether the model is run as the stock pipeline runs it: its latents' size, and notes on what differs."""
    transformer, vae = configs["transformer"], configs["vae"]
    clips = [configs[name] for name in ("text_encoder", "text_encoder_2")]
    for config, name in zip(clips, ("text_encoder", "text_encoder_2"), strict=True):
        check_text_encoder(config, name)
    third = configs.get("text_encoder_3")
    check_lengths(*clips)
    wanted = {"pooled_projection_dim": (transformer["pooled_projection_dim"], sum(config["projection_dim"] for config in clips))}
    if third is not None:
        wanted["joint_attention_dim"] = (transformer["joint_attention_dim"], third["d_model"])
    check_widths(wanted)
    if sum(config["hidden_size"] for config in clips) > transformer["joint_attention_dim"]:
        raise BdauditError("transformer/config.json: joint_attention_dim is less than the widths of both CLIPs together")
    check_channels(transformer["in_channels"], transformer["out_channels"], vae)
    latents, note = sized(transformer.get("sample_size", 128), transformer["patch_size"], vae, asked)
    if max(latents) // transformer["patch_size"] > transformer["pos_embed_max_size"]:
        raise BdauditError(f"latents of {latents[1]} × {latents[0]} have no places among pos_embed_max_size; a smaller --size has")
    check_cost(transformer["caption_projection_dim"], transformer["patch_size"], TOKENS + clips[0]["max_position_embeddings"], vae, latents)
    notes = [note, *check_flow(configs["scheduler"])]
    if third is None:
        notes.append("there is no text_encoder_3: zeros stand in place of its states, as in the stock pipeline")
    notes.append(pipeline_note(pipeline_class, "StableDiffusion3Pipeline"))
    return latents, [each for each in notes if each]


LAYOUT = Layout(
    name="sd3",
    called="a Stable Diffusion 3 pipeline",
    pipelines=r"StableDiffusion3\w*Pipeline",
    parts={
        **{"tokenizer": TOKENIZER, "text_encoder": PROJECTED, "tokenizer_2": TOKENIZER, "text_encoder_2": PROJECTED},
        **{"tokenizer_3": t5.tokenizer(TOKENS), "text_encoder_3": t5.ENCODER},
        **{"transformer": TRANSFORMER, "vae": AUTOENCODER, "scheduler": FLOW},
    },
    vocabularies={"tokenizer": "text_encoder", "tokenizer_2": "text_encoder_2", "tokenizer_3": "text_encoder_3"},
    heeding=("transformer", "text_encoder", "text_encoder_2", "text_encoder_3"),
    as_run=_as_run,
    optional=frozenset({"text_encoder_3"}),
)
