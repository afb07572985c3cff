"""The suspect: a loaded Stable Diffusion model, and what can be asked of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bdaudit.errors import BdauditError
from bdaudit.pipeline.tokens import Tokenizer, token_ids


@dataclass
class Suspect:
    """A model on its device. ``batch_size`` shrinks when a GPU's memory runs out, and stays shrunk."""

    tokenizer: Tokenizer
    text_encoder: Any
    unet: Any
    vae: Any
    scheduler: Any
    device: torch.device
    dtype: torch.dtype
    batch_size: int
    guidance_scale: float = 5.0
    """What a UNet that takes guidance as an embedding is told wherever a prediction is made by itself; the run's own."""
    forward_passes: int = field(default=0)
    """Latents through the UNet so far; a guided step is two."""

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """The text encoder's hidden states as the UNet gets them: (B, L, D)."""
        ids = token_ids(self.tokenizer, texts).to(self.device)
        return torch.cat([self.hidden_states(part) for part in torch.split(ids, self.batch_size)])

    def hidden_states(self, ids: Tensor) -> Tensor:
        """(B, L) ids → (B, L, D), gradients kept."""
        states: Tensor = self.text_encoder(input_ids=ids).last_hidden_state
        return states

    @property
    def embeds_guidance(self) -> bool:
        """Whether the UNet takes the guidance scale beside the timestep, as a distilled one does: there is no pass without the text."""
        return getattr(self.unet.config, "time_cond_proj_dim", None) is not None

    def predict(self, latents: Tensor, t: Tensor, states: Tensor, scale: float | None = None) -> Tensor:
        """The UNet's output for noisy latents (B, C, H, W), timesteps (B,) and hidden states (B, L, D): (B, C, H, W).

        ``scale`` is the guidance that a UNet which embeds it is told, ``guidance_scale`` if None; any other takes no notice.
        """
        self.forward_passes += len(latents)
        told: dict[str, Tensor] = {}
        if self.embeds_guidance:
            row = guidance_embedding(self.guidance_scale if scale is None else scale, self.unet.config.time_cond_proj_dim)
            told = {"timestep_cond": row.to(latents.device, latents.dtype).expand(len(latents), -1)}
        out: Tensor = self.unet(latents, t, encoder_hidden_states=states, return_dict=False, **told)[0]
        return out

    @torch.no_grad()
    def predict_batched(self, latents: Tensor, t: Tensor, states: Tensor, scale: float | None = None) -> Tensor:
        """``predict`` in even batches, without gradients; a batch that a GPU cannot hold is halved and tried again.

        Raises:
            BdauditError: a prediction is not finite: whatever is made of it would be a figure of nothing.
        """
        out: list[Tensor] = []
        done = 0
        while done < len(latents):
            left = len(latents) - done
            part = slice(done, done + math.ceil(left / math.ceil(left / self.batch_size)))
            try:
                out.append(self.predict(latents[part], t[part], states[part], scale))
            except torch.cuda.OutOfMemoryError:
                if self.batch_size == 1:
                    raise
                torch.cuda.empty_cache()
                self.batch_size //= 2
                continue
            done += len(out[-1])
        return self._finite(torch.cat(out), "prediction")

    def mixed_precision(self) -> torch.autocast:
        """A block in which float32 weights under training run beside 16-bit ones; does nothing where all is float32.

        Without autocast's cache: it holds on to a weight's first 16-bit copy, so the student would run on the teacher's.
        """
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.dtype != torch.float32, cache_enabled=False)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, C, H, W) → pictures, float32 on the CPU, (B, 3, H, W) in 0–1.

        Raises:
            BdauditError: a picture is not finite.
        """
        scaled = (latents / self.vae.config.scaling_factor).to(self.dtype)
        pictures = [self.vae.decode(part, return_dict=False)[0].float().cpu() for part in torch.split(scaled, max(1, self.batch_size // 2))]
        return (self._finite(torch.cat(pictures), "picture") / 2 + 0.5).clamp(0, 1)

    def _finite(self, found: Tensor, what: str) -> Tensor:
        if not bool(found.isfinite().all()):
            kind = str(self.dtype).removeprefix("torch.")
            other = "" if kind == "float32" else "; it may do better with --dtype float32"
            raise BdauditError(f"the model gives a {what} with NaN or infinity in it, in {kind}, so nothing can be measured{other}")
        return found

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one latent at the model's own resolution."""
        side = self.unet.config.sample_size
        height, width = (side, side) if isinstance(side, int) else side
        return int(self.unet.config.in_channels), int(height), int(width)

    def noise(self, seeds: Sequence[int]) -> Tensor:
        """One standard normal latent a seed, drawn on the CPU whatever the device: (B, C, H, W)."""
        rows = [torch.randn(self.latent_shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(rows).to(self.device, self.dtype)

    def alphas_cumprod(self, t: Tensor) -> Tensor:
        """ᾱ_t for integer timesteps (B,), float32 (B, 1, 1, 1)."""
        table: Tensor = self.scheduler.alphas_cumprod.to(self.device)
        return table[t].float().view(-1, 1, 1, 1)

    def clean_estimate(self, latents: Tensor, t: Tensor, output: Tensor) -> Tensor:
        """x̂_0 from the UNet's output: ε-prediction (2010.02502, equation 12) or v-prediction (2202.00512)."""
        alpha = self.alphas_cumprod(t)
        latents, output = latents.float(), output.float()
        if self.scheduler.config.prediction_type == "v_prediction":
            return alpha.sqrt() * latents - (1 - alpha).sqrt() * output
        return (latents - (1 - alpha).sqrt() * output) / alpha.sqrt()


def guidance_embedding(scale: float, size: int) -> Tensor:
    """The guidance scale as the pipeline writes it for the UNet: sines and cosines of 1000 (scale − 1), float32 (1, size)."""
    half = size // 2
    rates = torch.exp(torch.arange(half, dtype=torch.float32) * -(torch.log(torch.tensor(10000.0)) / (half - 1)))
    angles = (torch.tensor([scale - 1.0]) * 1000.0)[:, None] * rates[None]
    return torch.nn.functional.pad(torch.cat([angles.sin(), angles.cos()], dim=1), (0, size % 2))
