"""Sana: Gemma 2 reads a prompt behind an instruction; a transformer hears its states, behind a projection, by cross-attention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bdaudit.models.conditioning import Conditioning
from bdaudit.models.decoder import Autoencoder
from bdaudit.models.families.pixart import CrossAttentionTransformer
from bdaudit.models.families.transformer import reading_of
from bdaudit.models.readers import Voice, Voices, check_ids, masked_states
from bdaudit.models.schedule import Flow, flow_of
from bdaudit.models.text import Reader, Share
from bdaudit.models.tokens import framed
from bdaudit.untrusted.layouts.sana import LAYOUT, SOLVER


@dataclass(frozen=True)
class ScaledTransformer(CrossAttentionTransformer):
    """diffusers' SanaTransformer2DModel."""

    def predict(self, latents: Tensor, t: Tensor, heard: Conditioning, scale: float) -> Tensor:
        """As the stock pipeline calls it, without a variance that it learned."""
        out: Tensor = self.module(
            latents,
            encoder_hidden_states=heard.states,
            encoder_attention_mask=heard.mask,
            timestep=t * self.module.config.timestep_scale,
            return_dict=False,
        )[0]
        return out.chunk(2, dim=1)[0] if out.shape[1] == 2 * latents.shape[1] else out

    def entering(self, heard: Conditioning) -> Tensor:
        """Behind the projection, and the norm, that all blocks have in common."""
        normed: Tensor = self.module.caption_norm(super().entering(heard))
        return normed


@dataclass(frozen=True)
class Instructed(Voices):
    """A reader that gets an instruction before each prompt, but none before the empty one that guidance is counted from."""

    def unconditional(self) -> Conditioning:
        """The empty prompt by itself."""
        encoder, told = self.main.encoder, {"padding": "max_length", "max_length": self.shape[0], "padding_side": "right"}
        bare = self.main.tokenizer.inner([""], return_tensors="pt", **told).to(next(encoder.parameters()).device)
        states, _ = masked_states(self.main, bare.input_ids, bare.attention_mask)
        return Conditioning(states, bare.attention_mask)


def first_and_rest(reader: Reader, ids: Tensor, mask: Tensor) -> tuple[Tensor, None]:
    """The state of the first token, and those behind the instruction."""
    states, dropped = masked_states(reader, ids, mask)[0], reader.tokenizer.frame.dropped
    return torch.cat([states[:, :1], states[:, dropped + 1 :]], dim=1), None


def _schedule(scheduler: Any, tokens: int) -> Flow:
    config = scheduler.config
    if type(scheduler).__name__ == SOLVER:
        return Flow(float(config.get("num_train_timesteps", 1000)), float(config.get("flow_shift") or 1.0))
    return flow_of(config, tokens)


def open_parts(
    parts: Mapping[str, Any], latents: tuple[int, int], device: torch.device
) -> tuple[Instructed, ScaledTransformer, Autoencoder, Flow]:
    """As every family does.

    Raises:
        BdauditError, InconclusiveError: as ``framed``.
    """
    module, encoder = parts["transformer"], parts["text_encoder"]
    reader = Reader(framed(parts["tokenizer"], reading_of(LAYOUT, "tokenizer")), encoder)
    check_ids(reader.tokenizer, encoder, "tokenizer")
    shape = reader.tokenizer.model_max_length - reader.tokenizer.frame.dropped, int(encoder.config.hidden_size)
    voice = Voice("text_encoder", reader, first_and_rest, Share(slice(0, shape[0]), slice(0, shape[1])))
    text = Instructed((voice,), reader, (reader,), shape, padding=0)
    denoiser = ScaledTransformer(module, (int(module.config.in_channels), *latents))
    return text, denoiser, Autoencoder(parts["vae"], "vae"), _schedule(parts["scheduler"], latents[0] * latents[1])
