"""How the parts of a family are called in files: which beginnings of names hold which part, and in whose naming.

A whole checkpoint has a beginning for each part, a file of one part none. What no beginning claims is a leftover, and is named.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from bdaudit.untrusted.formats.names import flux, ldm_unet, ldm_vae, mmdit, open_clip
from bdaudit.untrusted.formats.names.renaming import Rows, Source

Read = Callable[[Rows, int], dict[str, Source]]
"""Names without the beginning, with their rows, and how many layers are asked for (0: all there are) → part's name → source."""


@dataclass(frozen=True)
class Spelling:
    """One naming of one part."""

    prefix: str
    marks: tuple[str, ...]
    """Names, one of which is in every such file behind the beginning."""
    read: Read
    layers: Callable[[Collection[str]], int] = lambda names: 0
    """How many layers the names go up to, where more may lie there than are used."""
    beside: tuple[str, ...] = ()
    """Names that are all there too: those that tell the part from a kin's."""

    def fits(self, names: Collection[str]) -> bool:
        """Whether a file with these names holds the part so."""
        marked = any(f"{self.prefix}{mark}" in names for mark in self.marks)
        return marked and all(f"{self.prefix}{name}" in names for name in self.beside)


def _as_they_are(names: Rows, layers: int) -> dict[str, Source]:
    return {name: Source(name) for name in names}


def _open_clip(names: Rows, layers: int) -> dict[str, Source]:
    return open_clip.sources_in_file(names, layers or open_clip.layers_of_file(names))


def _ldm_unet(prefix: str) -> Spelling:
    return Spelling(prefix, ("input_blocks.0.0.weight",), lambda names, layers: ldm_unet.sources_in_file(names))


def _ldm_vae(prefix: str) -> Spelling:
    return Spelling(prefix, ("decoder.mid.block_1.conv1.weight",), lambda names, layers: ldm_vae.sources_in_file(names))


def _unet(prefix: str) -> Spelling:
    return Spelling(prefix, ("down_blocks.0.resnets.0.conv1.weight",), _as_they_are)


def _vae(prefix: str) -> Spelling:
    return Spelling(prefix, ("decoder.mid_block.resnets.0.conv1.weight",), _as_they_are)


def _clip(prefix: str) -> Spelling:
    embedding = "embeddings.token_embedding.weight"
    return Spelling(prefix, (embedding, f"text_model.{embedding}"), _as_they_are)


def _tower(prefix: str) -> Spelling:
    return Spelling(prefix, ("transformer.resblocks.0.ln_1.weight",), _open_clip, open_clip.layers_of_file)


def _flux(prefix: str) -> Spelling:
    return Spelling(
        prefix,
        ("double_blocks.0.img_attn.qkv.weight",),
        lambda rows, layers: flux.sources_in_file(rows),
        beside=("single_blocks.0.linear1.weight", "vector_in.in_layer.weight"),
    )


def _mmdit(prefix: str) -> Spelling:
    return Spelling(prefix, ("joint_blocks.0.x_block.attn.qkv.weight",), lambda rows, layers: mmdit.sources_in_file(rows))


def _transformer(*marks: str) -> Spelling:
    """diffusers' own file."""
    return Spelling("", marks[:1], _as_they_are, beside=(*marks[1:], "time_text_embed.text_embedder.linear_1.weight"))


def _t5(prefix: str) -> Spelling:
    return Spelling(prefix, ("encoder.block.0.layer.0.SelfAttention.q.weight",), _as_they_are)


_BEGINNINGS = ("model.diffusion_model.", "diffusion_model.", "")
UNETS = (_ldm_unet("model.diffusion_model."), _ldm_unet("diffusion_model."), _ldm_unet(""), _unet("unet."), _unet(""))
VAES = (_ldm_vae("first_stage_model."), _ldm_vae("vae."), _ldm_vae(""), _vae("vae."), _vae(""))

SPELLINGS: dict[str, dict[str, tuple[Spelling, ...]]] = {
    "stable-diffusion": {
        "unet": UNETS,
        "vae": VAES,
        "text_encoder": (
            *(_clip("cond_stage_model.transformer."), _tower("cond_stage_model.model.")),
            *(_clip("text_encoders.clip_l.transformer."), _clip("text_encoder."), _clip(""), _tower("")),
        ),
    },
    "sdxl": {
        "unet": UNETS,
        "vae": VAES,
        "text_encoder": (
            *(_clip("conditioner.embedders.0.transformer."), _clip("text_encoders.clip_l.transformer.")),
            *(_clip("text_encoder."), _clip("")),
        ),
        "text_encoder_2": (
            *(_tower("conditioner.embedders.1.model."), _clip("text_encoders.clip_g.transformer.")),
            *(_clip("text_encoder_2."), _clip(""), _tower("")),
        ),
    },
    "sd3": {
        "transformer": (*map(_mmdit, _BEGINNINGS), _transformer("pos_embed.pos_embed", "transformer_blocks.0.attn.add_q_proj.weight")),
        "vae": VAES,
        "text_encoder": (_clip("text_encoders.clip_l.transformer."), _clip("text_encoder."), _clip("")),
        "text_encoder_2": (_clip("text_encoders.clip_g.transformer."), _clip("text_encoder_2."), _clip(""), _tower("")),
        "text_encoder_3": (_t5("text_encoders.t5xxl.transformer."), _t5("text_encoder_3."), _t5("")),
    },
    "flux": {
        "transformer": (*map(_flux, _BEGINNINGS), _transformer("single_transformer_blocks.0.proj_mlp.weight")),
        "vae": VAES,
        "text_encoder": (_clip("text_encoders.clip_l.transformer."), _clip("text_encoder."), _clip("")),
        "text_encoder_2": (_t5("text_encoders.t5xxl.transformer."), _t5("text_encoder_2."), _t5("")),
    },
}
"""Family → part → the ways in which files hold it; those without a beginning are of files that hold nothing else."""
_ADDED = ("label_emb.0.0.weight", "add_embedding.linear_1.weight")
"""What the UNet of SDXL has and that of Stable Diffusion has not: where the pooled vector and the size go in."""


def family_of(names: Collection[str]) -> str:
    """The family whose denoiser a file with these names holds; empty where it holds none that is known."""
    for family in ("flux", "sd3"):
        if any(each.fits(names) for each in SPELLINGS[family]["transformer"]):
            return family
    prefixes = [each.prefix for each in UNETS if each.fits(names)]
    if not prefixes:
        return ""
    return "sdxl" if any(f"{prefix}{name}" in names for prefix in prefixes for name in _ADDED) else "stable-diffusion"


UNSUPPORTED = {
    r"(model\.diffusion_model\.)?distilled_guidance_layer\.": "Chroma",
    r"(model\.diffusion_model\.)?double_stream_modulation": "FLUX.2",
    r"(model\.diffusion_model\.)?(controlnet|redux|pulid|ip_adapter)": "an addition to FLUX or Stable Diffusion 3",
    r"conditioner\.embedders\.0\.model\.": "SDXL's refiner, which draws nothing by itself (audit the base that it refines)",
    r"edm_(mean|std|vpred)": "an SDXL with EDM's noise levels",
    r"model\.(control_model|audio)\.": "of another family",
}
"""Beginning of a name → what the file is, which is not read, whatever it has besides."""
_INNER = r"(model\.)?(diffusion_model\.)?"
KINDRED = {
    rf"{_INNER}joint_blocks\.0\.": ("a kin of Stable Diffusion 3", ("sd3",)),
    rf"{_INNER}double_blocks\.0\.": ("a kin of FLUX", ("flux",)),
    rf"{_INNER}(single_)?transformer_blocks\.0\.": ("a diffusion transformer", ("sd3", "flux")),
    rf"{_INNER}input_blocks\.0\.0\.weight": ("a UNet beside another denoiser", ("", "stable-diffusion", "sdxl")),
}
"""The same of what is no such thing in files of the families that it names: a kin that is not read, or a second denoiser."""

IDLE = {
    r"(betas|alphas_cumprod(_prev)?|sqrt_(one_minus_)?alphas_cumprod|log_one_minus_alphas_cumprod|sqrt_recip(m1)?_alphas_cumprod)": "noise",
    r"(posterior_(variance|log_variance_clipped|mean_coef[12])|lvlb_weights|logvar|scale_factor)": "noise",
    r"model_ema\.(decay|num_updates)": "counters",
    r"first_stage_model\.loss\..*": "the autoencoder's training loss",
    r"(cond_stage_model|conditioner\.embedders\.1)\.model\.(attn_mask|visual\..*)": "what a CLIP has besides",
    r"(cond_stage_model|conditioner\.embedders\.\d)\.(logit_scale|text_projection)|denoiser\.sigmas": "what a CLIP has besides",
    r"text_encoders\.clip_[lg]\.(transformer\.)?logit_scale": "what a CLIP has besides",
    r"(.*\.)?(scaled_fp8|v_pred|ztsnr)": "marks that say how the rest is meant",
}
"""Pattern of a whole name → what it is: nothing that a loader builds a part from."""
EMA = "model_ema."
"""Where a checkpoint keeps its UNet's moving average; the names behind it have lost their dots."""


def is_idle(name: str) -> bool:
    """Whether a tensor of that name is no part's, and none is built from it."""
    return any(re.fullmatch(pattern, name) for pattern in IDLE)


def unsupported(names: Collection[str]) -> str:
    """What a file is that is not read; empty where nothing says so."""
    family = family_of(names)
    patterns = UNSUPPORTED | {pattern: said for pattern, (said, own) in KINDRED.items() if family not in own}
    return next((said for pattern, said in patterns.items() if any(re.match(pattern, name) for name in names)), "")


def ema_names(names: Collection[str], prefix: str) -> Mapping[str, str]:
    """Name in the UNet → the name of its average, both of the file's."""
    flat = {f"{EMA}{name.removeprefix('model.').replace('.', '')}": name for name in names if name.startswith(prefix)}
    return {flat[name]: name for name in names if name in flat}
