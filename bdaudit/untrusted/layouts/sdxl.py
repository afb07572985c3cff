"""Stable Diffusion XL: two text towers, a pooled vector, a size; what the stock pipeline does, and what becomes of it here.

``StableDiffusionXLPipeline``'s ``__init__``, ``encode_prompt`` and ``__call__`` in diffusers 0.42; ``tests/models/families/test_sdxl.py``
compares. Where nothing is said, as ``stable_diffusion`` has it.

=====================================================  =========================================================================
the stock pipeline                                     here
=====================================================  =========================================================================
both towers' ``hidden_states[-2]``, side by side       the same
``text_embeds`` of the second tower                    the same, as the pooled vector
``prompt_2``, ``negative_prompt``, ``clip_skip``       the caller's, off by default: one prompt for both towers
each tokenizer pads and cuts in its own way            the same; two vocabularies, or two lengths: exit 4
empty prompt for guidance: zeros where                 the same
``force_zeros_for_empty_prompt``, else encoded
``add_time_ids``: original and target size, no crop    the same, at the size that is drawn
height and width: ``sample_size``, 128 where none is   the same, with a note; ``--size`` sets another
guidance above 1, in one batch of two                  the same; none, with a note, where the scheduler is that of a distilled model:
                                                       ``few_steps``. The pipeline leaves it to the caller
``time_cond_proj_dim``: guidance as an embedding       the same
``force_upcast``: the VAE in float32 under float16     the same
``latents_mean``, ``latents_std`` of the VAE           exit 4
add_embedding of another width than its inputs'        an error
watermark                                              none
no first text encoder: the refiner                     exit 4
``StableDiffusionXL…`` but the refiner                 run as ``StableDiffusionXLPipeline``, with a note
=====================================================  =========================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bdaudit.errors import BdauditError, InconclusiveError
from bdaudit.untrusted.layouts.autoencoder import AUTOENCODER
from bdaudit.untrusted.layouts.clip import TOKENIZER, TOWER
from bdaudit.untrusted.layouts.layout import Config, Layout, Size
from bdaudit.untrusted.layouts.schedulers import SCHEDULER, few_steps
from bdaudit.untrusted.layouts.stable_diffusion import (
    check_channels,
    check_cost,
    check_scheduler,
    check_text_encoder,
    latent_size,
    pipeline_note,
)
from bdaudit.untrusted.layouts.unet import UNET
from bdaudit.untrusted.settings import FLAG
from bdaudit.untrusted.shapes import Tensors, size
from bdaudit.untrusted.tree import shown

USUAL = 128
"""The pipeline's size of latents where the UNet names none."""
SIZES = 6
"""Numbers that tell a picture's size."""
_BESIDE = ("class_embed_type", "num_class_embeds", "encoder_hid_dim", "encoder_hid_dim_type")


def _described(tensors: Tensors) -> dict[str, Any]:
    assert TOWER.described is not None
    return TOWER.described(tensors) | {"projection_dim": size(tensors, "text_projection.weight", 0)}


PROJECTED = replace(
    TOWER,
    classes=("CLIPTextModelWithProjection",),
    described=_described,
    constant=r"text_model\.embeddings\.position_ids|logit_scale",
    canonical=str,  # transformers 5 keeps the prefix of this class
)
"""The second tower; what it projects is heard."""


def _check_unet(unet: Config, second: Config) -> None:
    """Whether the UNet takes what the stock call gives it: a text, its pooled vector, the picture's size.

    Raises:
        InconclusiveError: it takes something else.
        BdauditError: its added embedding is of another width.
    """
    named = [key for key in _BESIDE if unet.get(key) is not None]
    if named or unet.get("addition_embed_type") != "text_time":
        key = named[0] if named else "addition_embed_type"
        said = f"unet/config.json: {key} is {shown(unet.get(key))}"
        raise InconclusiveError(f"{said}; a UNet that takes other than a text, its pooled vector and a size is not supported")
    wide, pooled, each = unet.get("projection_class_embeddings_input_dim"), second["projection_dim"], unet.get("addition_time_embed_dim")
    if wide is None or each is None or wide != pooled + SIZES * each:
        got = f"projection_class_embeddings_input_dim is {shown(wide)}, addition_time_embed_dim {shown(each)}"
        raise BdauditError(f"unet/config.json: {got}; expected {pooled} of text_encoder_2 and {SIZES} times the latter")


def check_lengths(first: Config, second: Config) -> None:
    """Raises ``InconclusiveError`` where the towers read texts of two lengths: the pipeline fails on it, or cuts one of them."""
    lengths = [config["max_position_embeddings"] for config in (first, second)]
    if lengths[0] != lengths[1]:
        raise InconclusiveError(f"the text encoders read {lengths[0]} and {lengths[1]} tokens; two of one length are supported")


def _check_vae(vae: Config) -> None:
    """Raises ``InconclusiveError`` for latents that are normalised channel by channel."""
    named = [key for key in ("latents_mean", "latents_std") if vae.get(key) is not None]
    if named:
        raise InconclusiveError(f"vae/config.json: {named[0]} is set; latents that are normalised channel by channel are not supported")


def distilled(scheduler: Config, unet: Config) -> bool:
    """Whether both say that the model was distilled to few steps without guidance: the scheduler, and a size below SDXL's own, as Turbo's
    is. A scheduler's name alone is no sign: anybody can write it, and guidance makes a trigger's effect the stronger."""
    side = unet.get("sample_size")
    return few_steps(scheduler) and unet.get("time_cond_proj_dim") is None and type(side) is int and side < USUAL


def _as_guided(without: bool, scheduler: str) -> str:
    said = f"the scheduler ({scheduler}) is that of a model distilled to few steps"
    if without:
        return f"{said}, and so is the UNet's sample_size: it is run without guidance unless --guidance-scale asks for some"
    return f"{said}, the UNet's sample_size is not: it is run with guidance; --guidance-scale 0 runs it without"


def _as_run(pipeline_class: str, configs: Mapping[str, Config], asked: Size | None) -> tuple[Size, list[str]]:
    """Whether the model is run as the stock pipeline runs it: its latents' size, and notes on what differs."""
    unet, vae, first, second = (configs[part] for part in ("unet", "vae", "text_encoder", "text_encoder_2"))
    check_channels(unet, vae)
    _check_unet(unet, second)
    check_text_encoder(first, "text_encoder")
    check_text_encoder(second, "text_encoder_2")
    check_lengths(first, second)
    _check_vae(vae)
    notes = [*check_scheduler(configs["scheduler"])]
    own = {**unet, "sample_size": unet.get("sample_size") or USUAL, "_diffusers_version": None}
    latents, drawn_at = latent_size(own, vae, asked)
    check_cost(unet, vae, first["max_position_embeddings"], latents)
    if unet.get("sample_size") is None and asked is None:
        notes.append(f"unet/config.json has no sample_size: the pipeline takes {USUAL} for it; --size sets another")
    if few_steps(configs["scheduler"]) and unet.get("time_cond_proj_dim") is None:
        notes.append(_as_guided(distilled(configs["scheduler"], unet), shown(configs["scheduler"].get("_class_name"))))
    notes.append(pipeline_note(pipeline_class, "StableDiffusionXLPipeline"))
    return latents, [note for note in (drawn_at, *notes) if note]


LAYOUT = Layout(
    name="sdxl",
    called="a Stable Diffusion XL pipeline",
    pipelines=r"StableDiffusionXL\w*Pipeline",
    parts={
        **{"tokenizer": TOKENIZER, "text_encoder": TOWER, "tokenizer_2": TOKENIZER, "text_encoder_2": PROJECTED},
        **{"unet": UNET, "vae": AUTOENCODER, "scheduler": SCHEDULER},
    },
    vocabularies={"tokenizer": "text_encoder", "tokenizer_2": "text_encoder_2"},
    heeding=("unet", "text_encoder", "text_encoder_2"),
    as_run=_as_run,
    settings={"force_zeros_for_empty_prompt": FLAG, "add_watermarker": FLAG, "requires_aesthetics_score": FLAG},
    lacking={"text_encoder": "there is no text_encoder: this is SDXL's refiner, which is not supported; audit the base that it refines"},
)
