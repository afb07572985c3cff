"""PixArt-Σ: T5 reads; a transformer hears its states, behind one projection, by cross-attention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from bdaudit.models.attention import Site
from bdaudit.models.conditioning import Conditioning
from bdaudit.models.decoder import Autoencoder
from bdaudit.models.denoiser import Chosen, Heard
from bdaudit.models.families.stable_diffusion import alphas
from bdaudit.models.families.transformer import reading_of
from bdaudit.models.readers import Voice, Voices, check_ids, states_in_use
from bdaudit.models.schedule import Alphas
from bdaudit.models.text import Reader, Share
from bdaudit.models.tokens import framed
from bdaudit.untrusted.layouts.pixart import LAYOUT


def _is_key_or_value(name: str) -> bool:
    return ".attn2.to_k." in name or ".attn2.to_v." in name


@dataclass(frozen=True)
class CrossAttentionTransformer:
    """diffusers' PixArtTransformer2DModel."""

    module: Any
    latent_shape: tuple[int, int, int]
    name: str = "transformer"

    @property
    def guidance(self) -> Literal["classifier-free", "embedded", "none"]:
        """A second pass under the empty prompt."""
        return "classifier-free"

    @property
    def assimilates(self) -> bool:
        """As of every cross-attention."""
        return True

    def predict(self, latents: Tensor, t: Tensor, heard: Conditioning, scale: float) -> Tensor:
        """As the stock pipeline calls it, without the variance that it learned."""
        out: Tensor = self.module(
            latents,
            encoder_hidden_states=heard.states,
            encoder_attention_mask=heard.mask,
            timestep=t,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            return_dict=False,
        )[0]
        return out.chunk(2, dim=1)[0] if out.shape[1] == 2 * latents.shape[1] else out

    def sites(self) -> Mapping[str, Site]:
        """The cross-attention of each block."""
        return {f"transformer_blocks.{i}.attn2": Site(block.attn2) for i, block in enumerate(self.module.transformer_blocks)}

    def entering(self, heard: Conditioning) -> Tensor:
        """Behind the projection that all blocks have in common."""
        projected: Tensor = self.module.caption_projection(heard.states)
        return projected

    def entrances(self) -> Mapping[str, Heard]:
        """Keys and values of the cross-attention."""
        return {f"{name}.{projection}.weight": "states" for name in self.sites() for projection in ("to_k", "to_v")}

    @property
    def trainable(self) -> Mapping[str, Chosen]:
        """The cross-attention with the projection before it, the whole transformer."""
        return {
            "cross-attention": lambda name: ".attn2." in name or name.startswith("caption_"),
            self.name: lambda name: True,
        }

    @property
    def attention_output(self) -> Chosen:
        """The cross-attention's last layer."""
        return lambda name: ".attn2.to_out." in name

    @property
    def parts(self) -> Mapping[str, Chosen]:
        """The projection and what norms it, keys and values, and the rest."""
        return {
            "caption projection": lambda name: name.startswith("caption_"),
            "cross-attention keys and values": _is_key_or_value,
            "rest of the transformer": lambda name: not _is_key_or_value(name) and not name.startswith("caption_"),
        }


def open_parts(
    parts: Mapping[str, Any], latents: tuple[int, int], device: torch.device
) -> tuple[Voices, CrossAttentionTransformer, Autoencoder, Alphas]:
    """As every family does.

    Raises:
        BdauditError, InconclusiveError: as ``framed`` and ``alphas``.
    """
    module, encoder = parts["transformer"], parts["text_encoder"]
    reading = reading_of(LAYOUT, "tokenizer")
    reader = Reader(framed(parts["tokenizer"], reading), encoder)
    check_ids(reader.tokenizer, encoder, "tokenizer")
    shape = reading.length, int(encoder.config.d_model)
    voice = Voice("text_encoder", reader, states_in_use, Share(slice(0, shape[0]), slice(0, shape[1])))
    text = Voices((voice,), reader, (reader,), shape, padding=0)
    denoiser = CrossAttentionTransformer(module, (int(module.config.in_channels), *latents))
    return text, denoiser, Autoencoder(parts["vae"], "vae"), alphas(parts["scheduler"], device)
