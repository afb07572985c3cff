"""The suspect: a loaded model of any family, and what can be asked of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bdaudit.config.run import GUIDANCE
from bdaudit.errors import BdauditError
from bdaudit.models.attention import Recording, recorded
from bdaudit.models.conditioning import Conditioning
from bdaudit.models.decoder import Decoder
from bdaudit.models.denoiser import Denoiser
from bdaudit.models.schedule import Schedule
from bdaudit.models.text import Ids, TextSide
from bdaudit.models.tokens import Tokenizer


@dataclass
class Suspect:
    """A model on its device. ``batch_size`` shrinks when a GPU's memory runs out, and stays shrunk."""

    text: TextSide
    denoiser: Denoiser
    decoder: Decoder
    schedule: Schedule
    device: torch.device
    dtype: torch.dtype
    batch_size: int
    guidance_scale: float | None = None
    """What the run was asked for; None is the default."""
    waiting: tuple[str, ...] = ()
    """Parts that come to the device by turns, since they do not fit it together."""
    layered: tuple[str, ...] = ()
    """Those of them that come layer by layer, since they do not fit it by themselves."""
    forward_passes: int = field(default=0)
    """Latents through the denoiser so far; a guided step is two."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The main reader's."""
        return self.text.main.tokenizer

    @property
    def modules(self) -> Mapping[str, torch.nn.Module]:
        """Every module by the name of its folder."""
        return {**self.text.modules, self.denoiser.name: self.denoiser.module, self.decoder.name: self.decoder.module}

    @property
    def heeding(self) -> Mapping[str, torch.nn.Module]:
        """The modules that a text goes through, in which alone a trigger can live: the denoiser, then the text encoders."""
        return {self.denoiser.name: self.denoiser.module, **self.text.modules}

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Conditioning:
        """What the denoiser hears of ``texts``."""
        return self.encode_ids(self.text.ids(texts))

    @torch.no_grad()
    def encode_ids(self, ids: Ids) -> Conditioning:
        """The same of token ids, in batches, without gradients."""
        return Conditioning.cat([self.text.encode(part) for part in ids.to(self.device).split(self.batch_size)])

    @torch.no_grad()
    def unconditional(self) -> Conditioning:
        """What guidance is counted from: one row."""
        return self.text.unconditional()

    def predict(self, latents: Tensor, t: Tensor, heard: Conditioning, scale: float | None = None) -> Tensor:
        """The denoiser's output for noisy latents (B, C, H, W), timesteps (B,) and what it hears of B texts: (B, C, H, W).

        ``scale`` is the guidance that a denoiser which takes it as an input is told, the run's if None.
        """
        self.forward_passes += len(latents)
        own = GUIDANCE if self.guidance_scale is None else self.guidance_scale
        return self.denoiser.predict(latents, t, heard, own if scale is None else scale)

    @torch.no_grad()
    def predict_batched(self, latents: Tensor, t: Tensor, heard: Conditioning, scale: float | None = None) -> Tensor:
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
                out.append(self.predict(latents[part], t[part], heard[part], scale))
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
        pictures = [self.decoder.pictures(part).float().cpu() for part in torch.split(latents, max(1, self.batch_size // 2))]
        return (self._finite(torch.cat(pictures), "picture") / 2 + 0.5).clamp(0, 1)

    def _finite(self, found: Tensor, what: str) -> Tensor:
        if not bool(found.isfinite().all()):
            kind = str(self.dtype).removeprefix("torch.")
            other = "" if kind == "float32" else "; it may do better with --dtype float32"
            raise BdauditError(f"the model gives a {what} with NaN or infinity in it, in {kind}, so nothing can be measured{other}")
        return found

    def record_attention(self, keep: Callable[[str], bool] = lambda layer: True) -> AbstractContextManager[Recording]:
        """A block that records how much each pixel of the layers that ``keep`` names looks at each token, and changes no output.

        ``recording.latest()`` is layer → (B, H·W, L) of the last ``predict``.
        """
        return recorded(self.denoiser.sites(), keep)

    def noise(self, seeds: Sequence[int]) -> Tensor:
        """One standard normal latent a seed, drawn on the CPU whatever the device: (B, C, H, W)."""
        rows = [torch.randn(self.denoiser.latent_shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(rows).to(self.device, self.dtype)
