"""PixArt-Σ: T5 reads, and a transformer hears its states by cross-attention.

``PixArtSigmaPipeline``'s ``__init__``, ``encode_prompt`` and ``__call__`` in diffusers 0.42; ``tests/models/families/test_transformer.py``
compares.

=====================================================  =========================================================================
the stock pipeline                                     here
=====================================================  =========================================================================
``clean_caption``: on by default, and idle unless      texts are lower-cased and bare of white space at their ends, which is what
bs4 and ftfy are installed                             the pipeline does without the two
300 tokens of T5, padding masked                       the same
empty prompt for guidance                              the same
guidance above 1, in one batch of two                  the same
twice the channels come out: a learned σ               the first half, as there
height and width: ``sample_size``, then the nearest    the size as it stands; ``--size`` sets another, in whole patches
of a list (``use_resolution_binning``)
scheduler: class, solver                               its noise levels and prediction type alone, as of Stable Diffusion
``use_additional_conditions`` (PixArt-α)               exit 4
=====================================================  =========================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bdaudit.errors import BdauditError, InconclusiveError
from bdaudit.untrusted.layouts import t5
from bdaudit.untrusted.layouts.autoencoder import AUTOENCODER
from bdaudit.untrusted.layouts.dit import DEEPEST, WIDEST, check_channels, check_cost, check_widths, sized
from bdaudit.untrusted.layouts.layout import Config, Layout, Part, Size
from bdaudit.untrusted.layouts.schedulers import SCHEDULER
from bdaudit.untrusted.layouts.stable_diffusion import check_scheduler
from bdaudit.untrusted.layouts.unet import MOST_SIDE
from bdaudit.untrusted.settings import FLAG, NAME, WORD, number, optional, whole
from bdaudit.untrusted.shapes import Tensors, depth, size

TOKENS = 300
"""Of T5 that the pipeline reads."""


def _described(tensors: Tensors) -> dict[str, Any]:
    patch = size(tensors, "pos_embed.proj.weight", 2)
    return {
        "in_channels": size(tensors, "pos_embed.proj.weight", 1),
        "patch_size": patch,
        "out_channels": size(tensors, "proj_out.weight", 0) // patch**2,
        "caption_channels": size(tensors, "caption_projection.linear_1.weight", 1),
        "cross_attention_dim": size(tensors, "transformer_blocks.0.attn2.to_k.weight", 1),
        "num_layers": depth(tensors, "transformer_blocks"),
    }


def _check(config: Config, tensors: Tensors) -> None:
    """Heads make up the width."""
    width, heads = size(tensors, "pos_embed.proj.weight", 0), config.get("num_attention_heads", 16) * config.get("attention_head_dim", 72)
    if heads != width:
        raise BdauditError(f"its heads are {heads} numbers together, its weights are {width} wide")


TRANSFORMER = Part(
    library="diffusers",
    classes=("PixArtTransformer2DModel",),
    settings={
        "sample_size": whole(1, MOST_SIDE),
        "patch_size": whole(1, 16),
        "num_layers": whole(1, DEEPEST),
        "norm_num_groups": whole(1, 1024),
        "num_embeds_ada_norm": optional(whole(1, 1 << 20)),
        "interpolation_scale": optional(number(1e-3, 1e3)),
        "attention_type": optional(NAME),
        "activation_fn": WORD,
        "norm_type": NAME,
        **dict.fromkeys(("dropout", "norm_eps"), number(0, 1)),
        **dict.fromkeys(("in_channels", "out_channels", "num_attention_heads"), whole(1, 1024)),
        **dict.fromkeys(("attention_head_dim", "cross_attention_dim", "caption_channels"), whole(1, WIDEST)),
        **dict.fromkeys(("attention_bias", "upcast_attention", "norm_elementwise_affine", "use_additional_conditions"), FLAG),
    },
    idle=frozenset({"double_self_attention", "num_vector_embeds", "only_cross_attention", "use_linear_projection"}),
    described=_described,
    check=_check,
)


def _as_run(pipeline_class: str, configs: Mapping[str, Config], asked: Size | None) -> tuple[Size, list[str]]:
    """Whether the model is run as the stock pipeline runs it: its latents' size, and notes on what differs."""
    transformer, vae, encoder = configs["transformer"], configs["vae"], configs["text_encoder"]
    if transformer.get("use_additional_conditions"):
        raise InconclusiveError(
            "transformer/config.json: use_additional_conditions is set; a transformer that takes a size is not supported"
        )
    check_widths({"caption_channels": (transformer["caption_channels"], encoder["d_model"])})
    gives, latent = transformer["out_channels"], vae["latent_channels"]
    check_channels(transformer["in_channels"], latent if gives == 2 * latent else gives, vae)
    latents, note = sized(transformer.get("sample_size", 128), transformer["patch_size"], vae, asked)
    check_cost(transformer["cross_attention_dim"], transformer["patch_size"], TOKENS, vae, latents)
    return latents, [each for each in (note, *check_scheduler(configs["scheduler"])) if each]


LAYOUT = Layout(
    name="pixart",
    called="a PixArt-Σ pipeline",
    pipelines=r"PixArtSigmaPipeline",
    parts={
        **{"tokenizer": t5.tokenizer(TOKENS, lower=True), "text_encoder": t5.ENCODER},
        **{"transformer": TRANSFORMER, "vae": AUTOENCODER, "scheduler": SCHEDULER},
    },
    vocabularies={"tokenizer": "text_encoder"},
    heeding=("transformer", "text_encoder"),
    as_run=_as_run,
)
