"""Z-Image: Qwen3's states of a conversation of one prompt; picture tokens first, text behind them, in one sequence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from bdaudit.models.attention import Site, picture_then_text
from bdaudit.models.conditioning import Conditioning
from bdaudit.models.decoder import Autoencoder
from bdaudit.models.denoiser import Chosen, Heard
from bdaudit.models.families.transformer import reading_of
from bdaudit.models.readers import Voice, Voices, before_the_last, check_ids
from bdaudit.models.schedule import Flow, flow_of
from bdaudit.models.text import Reader, Share
from bdaudit.models.tokens import framed
from bdaudit.untrusted.layouts.z_image import LAYOUT, PATCH

_MULTIPLE = 32
"""Of which the tokens of a picture, and of a text, are filled up to."""


@dataclass(frozen=True)
class BackwardTransformer:
    """diffusers' ZImageTransformer2DModel; what it says is the velocity, negated, at a time that runs from picture to noise."""

    module: Any
    latent_shape: tuple[int, int, int]
    text_length: int
    name: str = "transformer"

    @property
    def guidance(self) -> Literal["classifier-free", "embedded", "none"]:
        """A second pass under the empty prompt."""
        return "classifier-free"

    @property
    def assimilates(self) -> bool:
        """Not known where words look at each other."""
        return False

    def predict(self, latents: Tensor, t: Tensor, heard: Conditioning, scale: float) -> Tensor:
        """As the stock pipeline calls it, each text as long as it is."""
        assert heard.mask is not None
        texts = [states[: int(mask.sum())] for states, mask in zip(heard.states, heard.mask, strict=True)]
        pictures = list(latents.unsqueeze(2).unbind(0))
        said = self.module(pictures, (1000 - t) / 1000, texts, return_dict=False)[0]
        return -torch.stack([each.float() for each in said]).squeeze(2).to(latents.dtype)

    def sites(self) -> Mapping[str, Site]:
        """The layers in which text and picture look at each other."""
        tokens = self.latent_shape[1] * self.latent_shape[2] // PATCH**2
        layout = partial(picture_then_text, picture=tokens, filled=-tokens % _MULTIPLE)
        layers = enumerate(self.module.layers)
        return {f"layers.{i}.attention": Site(layer.attention, layout, self.text_length) for i, layer in layers}

    def entering(self, heard: Conditioning) -> Tensor:
        """Behind the norm before the embedder."""
        normed: Tensor = self.module.cap_embedder[0](heard.states)
        return normed

    def entrances(self) -> Mapping[str, Heard]:
        """One layer, however deep the rest is."""
        return {"cap_embedder.1.weight": "states"}

    @property
    def trainable(self) -> Mapping[str, Chosen]:
        """The text's own layers, the whole transformer."""
        return {"cross-attention": _hears_text, self.name: lambda name: True}

    @property
    def attention_output(self) -> Chosen:
        """The attention's last layer, and the text's embedder."""
        return lambda name: (name.startswith("layers.") and ".attention.to_out." in name) or name.startswith("cap_embedder.")

    @property
    def parts(self) -> Mapping[str, Chosen]:
        """The entrance, the layers that refine the text alone, and the rest."""
        return {
            "text entrance": lambda name: name.startswith("cap_embedder."),
            "text's own layers": lambda name: _hears_text(name) and not name.startswith("cap_embedder."),
            "rest of the transformer": lambda name: not _hears_text(name),
        }


def _hears_text(name: str) -> bool:
    return name.startswith(("cap_embedder.", "context_refiner."))


def open_parts(
    parts: Mapping[str, Any], latents: tuple[int, int], device: torch.device
) -> tuple[Voices, BackwardTransformer, Autoencoder, Flow]:
    """As every family does.

    Raises:
        BdauditError, InconclusiveError: as ``framed``.
    """
    module, encoder, reading = parts["transformer"], parts["text_encoder"], reading_of(LAYOUT, "tokenizer")
    reader = Reader(framed(parts["tokenizer"], reading), encoder)
    check_ids(reader.tokenizer, encoder, "tokenizer")
    shape = reading.length, int(module.config.cap_feat_dim)
    voice = Voice("text_encoder", reader, before_the_last, Share(slice(0, shape[0]), slice(0, shape[1])))
    text = Voices((voice,), reader, (reader,), shape, padding=0)
    denoiser = BackwardTransformer(module, (int(module.config.in_channels), *latents), reading.length)
    schedule = flow_of(parts["scheduler"].config, latents[0] * latents[1] // PATCH**2)
    return text, denoiser, Autoencoder(parts["vae"], "vae", shifted=True), schedule
