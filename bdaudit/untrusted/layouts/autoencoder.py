"""diffusers' autoencoder with a KL term: its settings, what its weights tell of them, and how large a picture it makes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bdaudit.untrusted.layouts.layout import Config, Part, Size
from bdaudit.untrusted.layouts.unet import blocks
from bdaudit.untrusted.settings import FLAG, NAME, either, listed, number, optional, whole
from bdaudit.untrusted.shapes import Tensors, size

_BLOCKS, _WIDTH = 8, 16_384
_side = whole(1, 16_384)
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}

SETTINGS = {
    "block_out_channels": listed(whole(1, _WIDTH), _BLOCKS),
    "layers_per_block": whole(1, 8),
    "act_fn": NAME,
    "norm_num_groups": whole(1, _WIDTH),
    "sample_size": either(_side, listed(_side, 2, 2)),
    "scaling_factor": number(1e-4, 1e4),
    "shift_factor": optional(number(-1e4, 1e4)),
    **dict.fromkeys(("in_channels", "out_channels", "latent_channels"), whole(1, 1024)),
    **dict.fromkeys(("down_block_types", "up_block_types"), listed(NAME, _BLOCKS)),
    **dict.fromkeys(("latents_mean", "latents_std"), optional(listed(number(-1e4, 1e4), 1024))),
    **dict.fromkeys(("force_upcast", "use_quant_conv", "use_post_quant_conv", "mid_block_add_attention"), FLAG),
}


def _described(tensors: Tensors) -> dict[str, Any]:
    told = blocks(tensors, "encoder.")
    told["latent_channels"] = size(tensors, "decoder.conv_in.weight", 1)
    return told | {"out_channels": size(tensors, "decoder.conv_out.weight", 0)}


def _canonical(name: str) -> str:
    """diffusers renamed attention."""
    return re.sub(r"\.(query|key|value|proj_attn)\.(?=weight$|bias$)", lambda match: f".{_OLD_ATTENTION[match[1]]}.", name)


def scale_factor(vae: Config) -> int:
    """Pixels of a picture for one of a latent, as the pipeline takes it: a halving for each block but the last."""
    return int(2 ** (len(vae["block_out_channels"]) - 1))


def drawn(settings: Mapping[str, Config], latents: Size) -> Size:
    """Height and width in pixels of a picture of ``latents``; ``settings`` has each part's by its config's path.

    A family without an autoencoder draws pixels.
    """
    vae = settings.get(f"vae/{AUTOENCODER.config}")
    if vae is None:
        return latents
    levels = next(vae[key] for key in ("block_out_channels", "decoder_block_out_channels", "dim_mult") if key in vae)
    factor = scale_factor({"block_out_channels": levels})
    return latents[0] * factor, latents[1] * factor


def largest(vae: Config, latents: Size) -> int:
    """Numbers in the largest value when one latent becomes a picture: blocks double the sides at their own width, the last one does not."""
    widths: list[int] = vae["block_out_channels"]
    return latents[0] * latents[1] * max(width << 2 * (len(widths) - max(i, 1)) for i, width in enumerate(widths))


AUTOENCODER = Part(library="diffusers", classes=("AutoencoderKL",), settings=SETTINGS, described=_described, canonical=_canonical)
