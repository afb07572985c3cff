"""FLUX.1: T5's states and CLIP's pooled vector; text tokens first, in joint blocks and in single ones behind them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from bdaudit.models.attention import Site, text_first
from bdaudit.models.conditioning import Conditioning
from bdaudit.models.decoder import Autoencoder
from bdaudit.models.denoiser import Chosen, Heard
from bdaudit.models.families.stable_diffusion import fit_tokenizer
from bdaudit.models.families.transformer import STATES_ENTRANCE, JointTransformer, alike, reading_of
from bdaudit.models.readers import Voice, Voices, check_ids, last_states, pooler
from bdaudit.models.schedule import Flow, flow_of
from bdaudit.models.text import Reader, Share
from bdaudit.models.tokens import framed
from bdaudit.untrusted.layouts.flux import LAYOUT, PACKED


@dataclass(frozen=True)
class TextFirst(JointTransformer):
    """diffusers' FluxTransformer2DModel."""

    @property
    def guidance(self) -> Literal["classifier-free", "embedded", "none"]:
        """An input of dev, none of schnell; neither is run under the empty prompt."""
        return "embedded" if self.module.config.guidance_embeds else "none"

    def predict(self, latents: Tensor, t: Tensor, heard: Conditioning, scale: float) -> Tensor:
        """As the stock pipeline calls it, on packed latents."""
        height, width = (side // PACKED for side in latents.shape[2:])
        guidance = torch.full((len(latents),), scale, device=latents.device) if self.guidance == "embedded" else None
        out: Tensor = self.module(
            hidden_states=packed(latents),
            timestep=t.to(latents.dtype) / 1000,
            guidance=guidance,
            pooled_projections=heard.pooled,
            encoder_hidden_states=heard.states,
            txt_ids=torch.zeros(heard.states.shape[1], 3, device=latents.device, dtype=latents.dtype),
            img_ids=places(height, width).to(latents.device, latents.dtype),
            return_dict=False,
        )[0]
        return unpacked(out, height, width)

    def sites(self) -> Mapping[str, Site]:
        """One a block, joint blocks first."""
        layout = partial(text_first, text=self.text_length)
        lists = ("transformer_blocks", "single_transformer_blocks")
        return {f"{name}.{i}.attn": Site(block.attn, layout) for name in lists for i, block in enumerate(getattr(self.module, name))}

    @property
    def attention_output(self) -> Chosen:
        """The single blocks' way out too."""
        inherited = super().attention_output
        return lambda name: inherited(name) or (name.startswith("single_") and ".proj_out." in name)


@dataclass(frozen=True)
class StatesAlone(TextFirst):
    """One of the same blocks that hears no pooled vector, and is guided by a second pass."""

    @property
    def guidance(self) -> Literal["classifier-free", "embedded", "none"]:
        """A second pass under the empty prompt."""
        return "classifier-free"

    def entrances(self) -> Mapping[str, Heard]:
        """One layer, however deep the rest is."""
        return {STATES_ENTRANCE: "states"}

    @property
    def parts(self) -> Mapping[str, Chosen]:
        """The entrance, what else works on text alone, and the rest."""
        return {part: chosen for part, chosen in super().parts.items() if part != "pooled entrance"}


def packed(latents: Tensor) -> Tensor:
    """2 × 2 latents a token, as ``_pack_latents``: (B, C, H, W) → (B, H·W / 4, 4·C)."""
    b, c, h, w = latents.shape
    return latents.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, c * 4)


def unpacked(tokens: Tensor, height: int, width: int) -> Tensor:
    """Back again: (B, h·w, 4·C) → (B, C, 2·h, 2·w)."""
    b, _, c = tokens.shape
    return tokens.view(b, height, width, c // 4, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(b, c // 4, 2 * height, 2 * width)


def places(height: int, width: int) -> Tensor:
    """Row and column of each token, as ``_prepare_latent_image_ids``: (h·w, 3)."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).reshape(-1, 3).float()


def open_parts(parts: Mapping[str, Any], latents: tuple[int, int], device: torch.device) -> tuple[Voices, TextFirst, Autoencoder, Flow]:
    """As every family does.

    Raises:
        BdauditError, InconclusiveError: as ``fit_tokenizer`` and ``framed``.
    """
    module = parts["transformer"]
    width = int(module.config.joint_attention_dim)
    clip = Reader(parts["tokenizer"], parts["text_encoder"])
    fit_tokenizer(clip.tokenizer, clip.encoder)
    reading = reading_of(LAYOUT, "tokenizer_2")
    t5 = Reader(framed(parts["tokenizer_2"], reading), parts["text_encoder_2"])
    check_ids(t5.tokenizer, t5.encoder, "tokenizer_2")
    heard = Share(slice(0, reading.length), slice(0, width))
    voices = Voice("text_encoder", clip, pooler, None), Voice("text_encoder_2", t5, last_states, heard)
    text = Voices(voices, t5, alike(t5, [clip]), (reading.length, width))
    denoiser = TextFirst(module, (int(module.config.in_channels) // PACKED**2, *latents), reading.length)
    schedule = flow_of(parts["scheduler"].config, latents[0] * latents[1] // PACKED**2)
    return text, denoiser, Autoencoder(parts["vae"], "vae", shifted=True), schedule
