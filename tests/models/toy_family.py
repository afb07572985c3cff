"""A made-up family: no UNet, no autoencoder, no scheduler, none of the usual names; it stands in two registries and nowhere else.

Two towers read a prompt (the second gives the pooled vector), a painter looks at the words once from every pixel and follows a flow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from bdaudit.models.attention import Site
from bdaudit.models.conditioning import Conditioning
from bdaudit.models.denoiser import Chosen, Heard
from bdaudit.models.families.stable_diffusion import ClipText, fit_tokenizer
from bdaudit.models.text import Ids, Reader
from bdaudit.models.tokens import stretched
from bdaudit.untrusted.layouts.clip import TOKENIZER, TOWER
from bdaudit.untrusted.layouts.layout import Layout, Part
from bdaudit.untrusted.settings import whole
from bdaudit.untrusted.shapes import size

SIDE = 4


class Painter(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Noisy latents, a time, states with their mask and a pooled vector → the flow, (B, 3, H, W)."""

    @register_to_config
    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(SIDE * SIDE, width))
        self.query, self.bare = nn.Linear(4, width), nn.Linear(4, 3)
        self.key, self.value = (nn.Linear(128, width, bias=False) for _ in range(2))
        self.mood, self.mixed, self.out = nn.Linear(64, width, bias=False), nn.Linear(width, width), nn.Linear(width, 3)

    def forward(self, z: Tensor, t: Tensor, heard: Conditioning) -> Tensor:
        x = torch.cat([z.flatten(2).mT, t.to(z.dtype).view(-1, 1, 1).expand(-1, SIDE * SIDE, 1)], dim=-1)
        mask, pooled = cast(Tensor, heard.mask).bool(), heard.pooled
        q, k, v = (y[:, None] for y in (self.query(x) + self.place, self.key(heard.states), self.value(heard.states)))
        seen = nn.functional.scaled_dot_product_attention(q, k, v, mask[:, None, None])[:, 0]
        told = nn.functional.gelu(self.mixed(seen) + self.mood(pooled)[:, None] + self.place)
        return (self.bare(x) - self.out(told)).mT.unflatten(2, z.shape[2:])


@dataclass(frozen=True)
class TwoTowers(ClipText):
    """One tokenizer for both; the first tower's states, the second one's pooled vector; padding is not looked at."""

    second: Reader

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        return {"reader": self.main.encoder, "narrator": self.second.encoder}

    @property
    def readers(self) -> tuple[Reader, ...]:
        return (self.main, self.second)

    def encode(self, ids: Ids) -> Conditioning:
        mask = self.words(ids)
        mask[:, 0] = True
        pooled = self.second.encoder(input_ids=ids.by_reader[0]).pooler_output
        return Conditioning(super().encode(ids).states, mask, pooled)

    def stretched(self, clean: Ids, changed: Ids, heard: Conditioning) -> Conditioning:
        return Conditioning(stretched(heard.states, clean.by_reader[0], changed.by_reader[0]), self.encode(changed).mask, heard.pooled)


@dataclass(frozen=True)
class FlowPainter:
    """The painter as a denoiser."""

    module: Any
    latent_shape: tuple[int, int, int] = (3, SIDE, SIDE)
    name: str = "painter"
    guidance: Any = "classifier-free"

    def predict(self, latents: Tensor, t: Tensor, heard: Conditioning, scale: float) -> Tensor:
        return self.module(latents, t, heard)  # type: ignore[no-any-return]

    def sites(self) -> Mapping[str, Site]:
        return {"look": Site(self.module)}

    assimilates = True

    def entering(self, heard: Conditioning) -> Tensor:
        return heard.states

    def entrances(self) -> Mapping[str, Heard]:
        return {"key.weight": "states", "value.weight": "states", "mood.weight": "pooled"}

    @property
    def trainable(self) -> Mapping[str, Chosen]:
        return {"cross-attention": lambda name: name.split(".")[0] in ("key", "value", "mood", "mixed"), self.name: lambda name: True}

    @property
    def attention_output(self) -> Chosen:
        return lambda name: name.startswith("mixed.")

    @property
    def parts(self) -> Mapping[str, Chosen]:
        return {"entrances": self.entrances().__contains__, "rest of the painter": lambda name: name not in self.entrances()}


class Flow:
    """Rectified flow: z = (1 − t) x₀ + t ε, and the model says ε − x₀."""

    def times(self, steps: int, spacing: float) -> Tensor:
        return (torch.arange(steps, 0, -1) / steps) ** spacing

    def clean(self, z: Tensor, t: Tensor, out: Tensor) -> Tensor:
        return z.float() - t.view(-1, 1, 1, 1) * out.float()

    def noised(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        level = t.view(-1, 1, 1, 1)
        return ((1 - level) * x0 + level * noise).to(x0.dtype)

    def step(self, z: Tensor, t: Tensor, after: Tensor | None, out: Tensor) -> Tensor:
        return (z + ((0.0 if after is None else after) - t).view(-1, 1, 1, 1) * out).to(z.dtype)

    def unlike(self, other: object) -> str:
        return "" if isinstance(other, Flow) else "it has another kind of noise schedule"

    def same(self, other: object) -> bool:
        return isinstance(other, Flow)


class Enlarged(nn.Upsample):
    """Latents are pictures, four times too small."""

    name = "enlarger"
    module = property(lambda self: self)
    pictures = nn.Upsample.forward


PAINTER = Part(
    library="diffusers",
    classes=("Painter",),
    settings={"width": whole(1, 64)},
    described=lambda tensors: {"width": size(tensors, "query.weight", 0)},
)
LAYOUT = Layout(
    name="toy",
    called="a toy",
    pipelines="ToyPipeline",
    parts={"words": TOKENIZER, "reader": TOWER, "narrator": TOWER, "painter": PAINTER},
    vocabularies={"words": "reader"},
    heeding=("painter", "reader", "narrator"),
    as_run=lambda pipeline_class, configs, asked: ((SIDE, SIDE), []),
)


def open_parts(parts: Mapping[str, Any], latents: tuple[int, int], device: torch.device) -> tuple[TwoTowers, FlowPainter, Enlarged, Flow]:
    """As every family does."""
    fit_tokenizer(parts["words"], parts["reader"])
    text = TwoTowers(Reader(parts["words"], parts["reader"]), Reader(parts["words"], parts["narrator"]))
    return text, FlowPainter(parts["painter"], (3, *latents)), Enlarged(scale_factor=4), Flow()
