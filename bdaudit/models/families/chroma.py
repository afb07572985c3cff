"""Chroma: T5's states alone, in FLUX.1's joint and single blocks; padding is masked, but for its first place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bdaudit.models.conditioning import Conditioning
from bdaudit.models.decoder import Autoencoder
from bdaudit.models.families.flux import StatesAlone, packed, places, unpacked
from bdaudit.models.families.transformer import reading_of
from bdaudit.models.readers import Voice, Voices, check_ids, masked_states
from bdaudit.models.schedule import Flow, flow_of
from bdaudit.models.text import Reader, Share
from bdaudit.models.tokens import framed
from bdaudit.untrusted.layouts.chroma import LAYOUT
from bdaudit.untrusted.layouts.flux import PACKED


@dataclass(frozen=True)
class MaskedTextFirst(StatesAlone):
    """diffusers' ChromaTransformer2DModel."""

    def predict(self, latents: Tensor, t: Tensor, heard: Conditioning, scale: float) -> Tensor:
        """As the stock pipeline calls it, on packed latents."""
        height, width = (side // PACKED for side in latents.shape[2:])
        assert heard.mask is not None
        everywhere = heard.mask.new_ones(len(latents), height * width)
        out: Tensor = self.module(
            hidden_states=packed(latents),
            timestep=t.to(latents.dtype) / 1000,
            encoder_hidden_states=heard.states,
            txt_ids=torch.zeros(heard.states.shape[1], 3, device=latents.device, dtype=latents.dtype),
            img_ids=places(height, width).to(latents.device, latents.dtype),
            attention_mask=torch.cat([heard.mask, everywhere], dim=1).to(heard.states.dtype),
            return_dict=False,
        )[0]
        return unpacked(out, height, width)


def open_parts(
    parts: Mapping[str, Any], latents: tuple[int, int], device: torch.device
) -> tuple[Voices, MaskedTextFirst, Autoencoder, Flow]:
    """As every family does.

    Raises:
        BdauditError, InconclusiveError: as ``framed``.
    """
    module, encoder, reading = parts["transformer"], parts["text_encoder"], reading_of(LAYOUT, "tokenizer")
    reader, width = Reader(framed(parts["tokenizer"], reading), encoder), int(module.config.joint_attention_dim)
    check_ids(reader.tokenizer, encoder, "tokenizer")
    voice = Voice("text_encoder", reader, masked_states, Share(slice(0, reading.length), slice(0, width)))
    text = Voices((voice,), reader, (reader,), (reading.length, width), padding=1)
    denoiser = MaskedTextFirst(module, (int(module.config.in_channels) // PACKED**2, *latents), reading.length)
    schedule = flow_of(parts["scheduler"].config, latents[0] * latents[1] // PACKED**2)
    return text, denoiser, Autoencoder(parts["vae"], "vae", shifted=True), schedule
