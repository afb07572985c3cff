"""Z-Image and its Turbo: Qwen3 reads a prompt as a conversation; a transformer mixes picture and text, along a flow that runs backwards.

``ZImagePipeline``'s ``__init__``, ``encode_prompt`` and ``__call__`` in diffusers 0.42; ``tests/models/families/test_transformer.py``
compares. Its chat template is known by a copy alone: untested on its real files.

=====================================================  =========================================================================
the stock pipeline                                     here
=====================================================  =========================================================================
``apply_chat_template``, thinking switched on          prefix and suffix that it stands for: ``qwen``; no template is run
512 tokens, the template's among them; the states      the same
before the last layer's, without padding
guidance w: c + w (c − u)                              as of the other families, u + s (c − u): w is s − 1. Turbo's card asks
                                                       for none, which is the caller's to say
timesteps (1000 − t) / 1000, the output negated        the same: what is measured is the velocity
dynamic shifting by the picture's tokens               the same; Euler's steps: ``models.schedule.Flow``
``cfg_normalization``, ``cfg_truncation``              the caller's, off by default
height and width: 1024 pixels                          the same; ``--size`` sets another, in pairs of latents
pictures to mix in (SigLIP)                            exit 4
=====================================================  =========================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bdaudit.errors import BdauditError, InconclusiveError
from bdaudit.untrusted.layouts import qwen
from bdaudit.untrusted.layouts.autoencoder import AUTOENCODER, scale_factor
from bdaudit.untrusted.layouts.dit import DEEPEST, WIDEST, check_channels, check_cost, check_widths, sized
from bdaudit.untrusted.layouts.layout import Config, Layout, Part, Size
from bdaudit.untrusted.layouts.schedulers import FLOW, check_flow
from bdaudit.untrusted.layouts.stable_diffusion import check_text_encoder, pipeline_note
from bdaudit.untrusted.settings import FLAG, listed, number, optional, whole
from bdaudit.untrusted.shapes import Tensors, depth, size
from bdaudit.untrusted.tree import shown

TOKENS, PIXELS, PATCH = 512, 1024, 2
"""Of Qwen3 that the pipeline reads; a picture's side; latents a side of a token."""


def _described(tensors: Tensors) -> dict[str, Any]:
    return {
        "in_channels": size(tensors, "all_x_embedder.2-1.weight", 1) // PATCH**2,
        "dim": size(tensors, "all_x_embedder.2-1.weight", 0),
        "cap_feat_dim": size(tensors, "cap_embedder.1.weight", 1),
        "n_layers": depth(tensors, "layers"),
        "n_refiner_layers": depth(tensors, "context_refiner"),
    }


def _check(config: Config, tensors: Tensors) -> None:
    """The axes of its rotations make up a head, and there are as many lengths."""
    axes, lengths, heads = (config.get(key) or usual for key, usual in _USUAL.items())
    width = size(tensors, "all_x_embedder.2-1.weight", 0)
    if len(axes) != len(lengths) or sum(axes) * heads != width:
        raise BdauditError(f"its axes_dims are {shown(axes, 60)} in {heads} heads, its weights are {width} wide")
    if any(name.startswith("siglip_") for name in tensors) or config.get("siglip_feat_dim") is not None:
        raise InconclusiveError("it mixes pictures in (siglip_feat_dim), which is not supported")


_USUAL: dict[str, Any] = {"axes_dims": [32, 48, 48], "axes_lens": [1024, 512, 512], "n_heads": 30}
TRANSFORMER = Part(
    library="diffusers",
    classes=("ZImageTransformer2DModel",),
    settings={
        "all_patch_size": listed(whole(PATCH, PATCH), 1, 1),
        "all_f_patch_size": listed(whole(1, 1), 1, 1),
        "axes_dims": listed(whole(2, 1024), 3, 3),
        "axes_lens": listed(whole(1, 1 << 16), 3, 3),
        "siglip_feat_dim": optional(whole(1, WIDEST)),
        "qk_norm": FLAG,
        "norm_eps": number(0, 1),
        **dict.fromkeys(("rope_theta", "t_scale"), number(1e-3, 1e9)),
        **dict.fromkeys(("in_channels", "n_heads", "n_kv_heads"), whole(1, 1024)),
        **dict.fromkeys(("n_layers", "n_refiner_layers"), whole(1, DEEPEST)),
        **dict.fromkeys(("dim", "cap_feat_dim"), whole(1, WIDEST)),
    },
    described=_described,
    check=_check,
)


def _as_run(pipeline_class: str, configs: Mapping[str, Config], asked: Size | None) -> tuple[Size, list[str]]:
    """Whether the model is run as the stock pipeline runs it: its latents' size, and notes on what differs."""
    transformer, vae, encoder = (configs[name] for name in ("transformer", "vae", "text_encoder"))
    check_text_encoder(encoder, "text_encoder")
    check_widths({"cap_feat_dim": (transformer["cap_feat_dim"], encoder["hidden_size"])})
    check_channels(transformer["in_channels"], transformer["in_channels"], vae)
    latents, note = sized(max(1, PIXELS // scale_factor(vae)), PATCH, vae, asked)
    check_cost(transformer["dim"], PATCH, TOKENS, vae, latents)
    notes = (note, *check_flow(configs["scheduler"]), pipeline_note(pipeline_class, "ZImagePipeline"))
    return latents, [each for each in notes if each]


LAYOUT = Layout(
    name="z-image",
    called="a Z-Image pipeline",
    pipelines=r"ZImage(?!Omni)\w*Pipeline",
    parts={
        **{"tokenizer": qwen.tokenizer(TOKENS, thinks=True), "text_encoder": qwen.ENCODER},
        **{"transformer": TRANSFORMER, "vae": AUTOENCODER, "scheduler": FLOW},
    },
    vocabularies={"tokenizer": "text_encoder"},
    heeding=("transformer", "text_encoder"),
    as_run=_as_run,
)
