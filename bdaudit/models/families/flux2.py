"""FLUX.2 klein: three layers of Qwen3 read a conversation of one prompt; text tokens first, in joint blocks and single ones behind them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from bdaudit.models.conditioning import Conditioning
from bdaudit.models.families.flux import StatesAlone, packed, places, unpacked
from bdaudit.models.families.transformer import reading_of
from bdaudit.models.readers import Voice, Voices, behind_layers, check_ids
from bdaudit.models.schedule import Flow, flow_of
from bdaudit.models.text import Reader, Share
from bdaudit.models.tokens import framed
from bdaudit.untrusted.layouts.flux import PACKED
from bdaudit.untrusted.layouts.flux2 import LAYERS, LAYOUT
from bdaudit.untrusted.layouts.layout import PIPELINE


@dataclass(frozen=True)
class PlainTextFirst(StatesAlone):
    """diffusers' Flux2Transformer2DModel, as klein's pipeline calls it."""

    distilled: bool = False

    @property
    def guidance(self) -> Literal["classifier-free", "embedded", "none"]:
        """None of a model that was distilled to need none."""
        return "none" if self.distilled else "classifier-free"

    def predict(self, latents: Tensor, t: Tensor, heard: Conditioning, scale: float) -> Tensor:
        """As the stock pipeline calls it, on packed latents; words have their places on an axis of their own."""
        height, width = (side // PACKED for side in latents.shape[2:])
        words = torch.arange(heard.states.shape[1], device=latents.device)
        out: Tensor = self.module(
            hidden_states=packed(latents),
            timestep=t.to(latents.dtype) / 1000,
            guidance=None,
            encoder_hidden_states=heard.states,
            txt_ids=pad(words[:, None], (3, 0)),
            img_ids=pad(places(height, width), (0, 1)).to(latents.device),
            return_dict=False,
        )[0]
        return unpacked(out, height, width)


@dataclass(frozen=True)
class NormedAutoencoder:
    """diffusers' AutoencoderKLFlux2: what it draws from was normed, a channel of a packed token each."""

    module: Any
    name: str

    def pictures(self, latents: Tensor) -> Tensor:
        """In the precision of its weights."""
        norm, (height, width) = self.module.bn, (side // PACKED for side in latents.shape[2:])
        spread = (norm.running_var + self.module.config.batch_norm_eps).sqrt().to(latents)
        plain = unpacked(packed(latents) * spread + norm.running_mean.to(latents), height, width)
        drawn: Tensor = self.module.decode(plain.to(self.module.dtype), return_dict=False)[0]
        return drawn


@dataclass(frozen=True)
class SteppedFlow(Flow):
    """A flow whose shift grows with the tokens of a picture, and with how few steps are walked."""

    tokens: int = 0
    linear: bool = False

    def times(self, steps: int, spacing: float) -> Tensor:
        """As a flow's, at the shift of so many steps."""
        mu = mu_of(self.tokens, steps)
        return Flow(self.total, mu if self.linear else math.exp(mu), self.terminal).times(steps, spacing)


def mu_of(tokens: int, steps: int) -> float:
    """A line in the steps between two lines in the tokens, measured by Black Forest Labs: the pipeline's ``compute_empirical_mu``."""
    at_200 = 0.00016927 * tokens + 0.45666666
    slope = (at_200 - (8.73809524e-05 * tokens + 1.89833333)) / 190
    return at_200 if tokens > 4300 else slope * (steps - 200) + at_200


def _schedule(config: Any, tokens: int) -> Flow:
    plain, linear = flow_of({**config, "use_dynamic_shifting": False}, tokens), config.get("time_shift_type") == "linear"
    return SteppedFlow(plain.total, plain.shift, plain.terminal, tokens, linear) if config.get("use_dynamic_shifting") else plain


def open_parts(
    parts: Mapping[str, Any], latents: tuple[int, int], device: torch.device
) -> tuple[Voices, PlainTextFirst, NormedAutoencoder, Flow]:
    """As every family does.

    Raises:
        BdauditError, InconclusiveError: as ``framed``.
    """
    module, encoder, reading = parts["transformer"], parts["text_encoder"], reading_of(LAYOUT, "tokenizer")
    reader = Reader(framed(parts["tokenizer"], reading), encoder)
    check_ids(reader.tokenizer, encoder, "tokenizer")
    shape = reading.length, int(module.config.joint_attention_dim)
    voice = Voice("text_encoder", reader, behind_layers(LAYERS), Share(slice(0, shape[0]), slice(0, shape[1])))
    text, channels = Voices((voice,), reader, (reader,), shape), int(module.config.in_channels) // PACKED**2
    denoiser = PlainTextFirst(module, (channels, *latents), reading.length, distilled=bool(parts[PIPELINE].get("is_distilled")))
    schedule = _schedule(parts["scheduler"].config, latents[0] * latents[1] // PACKED**2)
    return text, denoiser, NormedAutoencoder(parts["vae"], "vae"), schedule
