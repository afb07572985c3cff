"""Qwen-Image: Qwen2.5-VL's states of one prompt; text tokens first, as many as the longest of a batch has, in joint blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from bdaudit.models.attention import Site, text_then_picture
from bdaudit.models.conditioning import Conditioning
from bdaudit.models.denoiser import Chosen, Heard
from bdaudit.models.families.flux import packed, unpacked
from bdaudit.models.families.transformer import JointTransformer, hears_text, reading_of
from bdaudit.models.readers import Voice, Voices, check_ids, last_behind_prefix
from bdaudit.models.schedule import Flow, flow_of
from bdaudit.models.text import Reader, Share
from bdaudit.models.tokens import framed
from bdaudit.untrusted.layouts.flux import PACKED
from bdaudit.untrusted.layouts.qwen_image import LAYOUT

_ENTRANCE = ("txt_in.", "txt_norm.")


def _own(name: str) -> bool:
    return name.startswith(_ENTRANCE) or ".txt_m" in name or hears_text(name)


@dataclass(frozen=True)
class TextAsLongAsItIs(JointTransformer):
    """diffusers' QwenImageTransformer2DModel."""

    @property
    def guidance(self) -> Literal["classifier-free", "embedded", "none"]:
        """None where no negative prompt is given."""
        return "none"

    def predict(self, latents: Tensor, t: Tensor, heard: Conditioning, scale: float) -> Tensor:
        """As the stock pipeline calls it, on packed latents, with texts as long as the longest."""
        assert heard.mask is not None
        height, width = (side // PACKED for side in latents.shape[2:])
        longest = int(heard.mask.sum(1).max())
        mask = heard.mask[:, :longest]
        out: Tensor = self.module(
            hidden_states=packed(latents),
            timestep=t.to(latents.dtype) / 1000,
            encoder_hidden_states=heard.states[:, :longest],
            encoder_hidden_states_mask=None if bool(mask.all()) else mask,
            img_shapes=[[(1, height, width)]] * len(latents),
            return_dict=False,
        )[0]
        return unpacked(out, height, width)

    def sites(self) -> Mapping[str, Site]:
        """One a block."""
        layout = partial(text_then_picture, picture=self.latent_shape[1] * self.latent_shape[2] // PACKED**2)
        blocks = enumerate(self.module.transformer_blocks)
        return {f"transformer_blocks.{i}.attn": Site(block.attn, layout, self.text_length) for i, block in blocks}

    def entering(self, heard: Conditioning) -> Tensor:
        """Behind the norm before the entrance."""
        normed: Tensor = self.module.txt_norm(heard.states)
        return normed

    def entrances(self) -> Mapping[str, Heard]:
        """One layer, however deep the rest is."""
        return {"txt_in.weight": "states"}

    @property
    def trainable(self) -> Mapping[str, Chosen]:
        """The text's own layers, the whole transformer."""
        return {"cross-attention": _own, self.name: lambda name: True}

    @property
    def attention_output(self) -> Chosen:
        """Both ways out of the joint attention, and the entrance."""
        inherited = super().attention_output
        return lambda name: inherited(name) or name.startswith("txt_in.")

    @property
    def parts(self) -> Mapping[str, Chosen]:
        """The entrance, what else works on text alone, and the rest."""
        return {
            "text entrance": lambda name: name.startswith(_ENTRANCE),
            "text's own layers": lambda name: _own(name) and not name.startswith(_ENTRANCE),
            "rest of the transformer": lambda name: not _own(name),
        }


@dataclass(frozen=True)
class VideoAutoencoder:
    """diffusers' AutoencoderKLQwenImage: a picture is a film of one frame, each channel of which has a mean and a spread."""

    module: Any
    name: str

    def pictures(self, latents: Tensor) -> Tensor:
        """In the precision of its weights."""
        config = self.module.config
        mean, spread = (latents.new_tensor(each).view(1, -1, 1, 1) for each in (config.latents_mean, config.latents_std))
        film = (latents * spread + mean).unsqueeze(2).to(self.module.dtype)
        drawn: Tensor = self.module.decode(film, return_dict=False)[0]
        return drawn[:, :, 0]


def open_parts(
    parts: Mapping[str, Any], latents: tuple[int, int], device: torch.device
) -> tuple[Voices, TextAsLongAsItIs, VideoAutoencoder, Flow]:
    """As every family does.

    Raises:
        BdauditError, InconclusiveError: as ``framed``.
    """
    module, encoder, reading = parts["transformer"], parts["text_encoder"], reading_of(LAYOUT, "tokenizer")
    reader = Reader(framed(parts["tokenizer"], reading), encoder)
    check_ids(reader.tokenizer, encoder, "tokenizer")
    shape = reading.length - reading.dropped, int(module.config.joint_attention_dim)
    voice = Voice("text_encoder", reader, last_behind_prefix, Share(slice(0, shape[0]), slice(0, shape[1])))
    text, channels = Voices((voice,), reader, (reader,), shape, padding=0), int(module.config.in_channels) // PACKED**2
    denoiser = TextAsLongAsItIs(module, (channels, *latents), shape[0])
    schedule = flow_of(parts["scheduler"].config, latents[0] * latents[1] // PACKED**2)
    return text, denoiser, VideoAutoencoder(parts["vae"], "vae"), schedule
