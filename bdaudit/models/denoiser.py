"""What a probe, a repair and a sampler ask of a denoiser, whatever its family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, Protocol

import torch
from torch import Tensor

from bdaudit.models.attention import Site
from bdaudit.models.conditioning import Conditioning

Chosen = Callable[[str], bool]
"""Which tensors, by name."""
Heard = Literal["states", "pooled"]
"""What of a ``Conditioning`` a layer takes in."""


class Denoiser(Protocol):
    """A module that predicts, in its own parametrisation."""

    @property
    def name(self) -> str:
        """Of its folder."""

    @property
    def module(self) -> torch.nn.Module:
        """With all its weights."""

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one latent at the size that the pipeline draws at."""

    @property
    def guidance(self) -> Literal["classifier-free", "embedded", "none"]:
        """Whether guidance is a second pass under the empty prompt, or an input; a model that was distilled to need none has none."""

    def predict(self, latents: Tensor, t: Tensor, heard: Conditioning, scale: float) -> Tensor:
        """(B, C, H, W), (B,), B rows → (B, C, H, W), gradients kept; ``scale`` is for a model that takes its guidance as an input."""

    def sites(self) -> Mapping[str, Site]:
        """Where a text is looked at, in the order that a pass runs them."""

    @property
    def assimilates(self) -> bool:
        """Whether it is known of such layers that the maps of a triggered prompt's words look alike (T2IShield)."""

    def entering(self, heard: Conditioning) -> Tensor:
        """What the entrances take in of the states: (B, L, D) → (B, L, D')."""

    def entrances(self) -> Mapping[str, Heard]:
        """The closed form's: the weights (out, in) through which alone a text enters, by name; what each takes in, in its first columns."""

    @property
    def trainable(self) -> Mapping[str, Chosen]:
        """Sets of tensors that a repair trains, the smallest first, the whole denoiser last and under its own name."""

    @property
    def attention_output(self) -> Chosen:
        """What the looked-at states are mixed by."""

    @property
    def parts(self) -> Mapping[str, Chosen]:
        """Parts, in words, that are exchanged with a reference's to say where a finding lives; each tensor in one."""
