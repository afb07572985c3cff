"""Stable Diffusion 3 and 3.5: two CLIPs and, where it is there, T5 read; text and picture look at each other, picture tokens first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bdaudit.models.attention import Site, image_first
from bdaudit.models.conditioning import Conditioning
from bdaudit.models.decoder import Autoencoder
from bdaudit.models.families.sdxl import check_one_vocabulary
from bdaudit.models.families.stable_diffusion import fit_tokenizer
from bdaudit.models.families.transformer import JointTransformer, reading_of
from bdaudit.models.readers import Voice, Voices, check_ids, last_states, penultimate
from bdaudit.models.schedule import Flow, flow_of
from bdaudit.models.text import Reader, Share
from bdaudit.models.tokens import framed
from bdaudit.untrusted.layouts.sd3 import LAYOUT


@dataclass(frozen=True)
class PictureFirst(JointTransformer):
    """diffusers' SD3Transformer2DModel."""

    def predict(self, latents: Tensor, t: Tensor, heard: Conditioning, scale: float) -> Tensor:
        """As the stock pipeline calls it."""
        told = {"encoder_hidden_states": heard.states, "pooled_projections": heard.pooled}
        out: Tensor = self.module(hidden_states=latents, timestep=t, return_dict=False, **told)[0]
        return out

    def sites(self) -> Mapping[str, Site]:
        """One a block; ``attn2``, where there is one, looks at the picture alone."""
        layout = partial(image_first, text=self.text_length)
        return {f"transformer_blocks.{i}.attn": Site(block.attn, layout) for i, block in enumerate(self.module.transformer_blocks)}


def _voices(parts: Mapping[str, Any], width: int) -> Voices:
    """Both CLIPs side by side, T5 behind them."""
    clips = [Reader(parts[f"tokenizer{end}"], parts[f"text_encoder{end}"]) for end in ("", "_2")]
    for reader in clips:
        fit_tokenizer(reader.tokenizer, reader.encoder)
    check_one_vocabulary(*(reader.tokenizer for reader in clips))
    first, second = (int(reader.encoder.config.hidden_size) for reader in clips)
    length = int(clips[0].tokenizer.model_max_length)
    places = Share(slice(0, length), slice(0, first)), Share(slice(0, length), slice(first, first + second))
    names, reading = ("text_encoder", "text_encoder_2"), reading_of(LAYOUT, "tokenizer_3")
    voices = [Voice(name, reader, penultimate, share) for name, reader, share in zip(names, clips, places, strict=True)]
    if "text_encoder_3" in parts:
        third = Reader(framed(parts["tokenizer_3"], reading), parts["text_encoder_3"])
        check_ids(third.tokenizer, third.encoder, "tokenizer_3")
        voices.append(Voice("text_encoder_3", third, last_states, Share(slice(length, length + reading.length), slice(0, width))))
    return Voices(tuple(voices), clips[0], tuple(clips), (length + reading.length, width))


def open_parts(parts: Mapping[str, Any], latents: tuple[int, int], device: torch.device) -> tuple[Voices, PictureFirst, Autoencoder, Flow]:
    """As every family does.

    Raises:
        BdauditError, InconclusiveError: as ``fit_tokenizer`` and ``framed``; or two vocabularies of CLIP.
    """
    module = parts["transformer"]
    text = _voices(parts, int(module.config.joint_attention_dim))
    denoiser = PictureFirst(module, (int(module.config.in_channels), *latents), text.shape[0])
    tokens = latents[0] * latents[1] // int(module.config.patch_size) ** 2
    return text, denoiser, Autoencoder(parts["vae"], "vae", shifted=True), flow_of(parts["scheduler"].config, tokens)
