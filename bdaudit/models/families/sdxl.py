"""Stable Diffusion XL: two CLIPs read; a UNet hears both by cross-attention, and the second one's projection beside the timestep."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from bdaudit.errors import InconclusiveError
from bdaudit.models.conditioning import Conditioning
from bdaudit.models.decoder import Autoencoder
from bdaudit.models.denoiser import Chosen, Heard
from bdaudit.models.families.stable_diffusion import ClipText, CrossAttentionUNet, alphas, fit_tokenizer
from bdaudit.models.schedule import Alphas
from bdaudit.models.text import Ids, Reader, Share, side_by_side
from bdaudit.models.tokens import Tokenizer, stretched
from bdaudit.untrusted.layouts.autoencoder import scale_factor
from bdaudit.untrusted.layouts.layout import GUIDED, PIPELINE
from bdaudit.untrusted.layouts.sdxl import distilled
from bdaudit.untrusted.tree import shown

POOLED_ENTRANCE = "add_embedding.linear_1.weight"
"""(out, E + 6·T): the pooled vector first, then the embedded sizes."""


@dataclass(frozen=True)
class TwoTowers:
    """Both CLIPs as one: every text goes through each, tokenized by its own tokenizer."""

    towers: tuple[ClipText, ClipText]
    silent: bool
    """Whether guidance is counted from zeros, not from the empty prompt."""

    @property
    def modules(self) -> Mapping[str, torch.nn.Module]:
        """By the names of their folders."""
        first, second = self.readers
        return {"text_encoder": first.encoder, "text_encoder_2": second.encoder}

    @property
    def main(self) -> Reader:
        """The first; the second has the same vocabulary."""
        return self.towers[0].main

    @property
    def readers(self) -> tuple[Reader, ...]:
        """Both."""
        return tuple(tower.main for tower in self.towers)

    def with_tokenizers(self, tokenizers: Sequence[Tokenizer]) -> TwoTowers:
        """The same towers, each with another tokenizer."""
        first, second = (tower.with_tokenizers([own]) for tower, own in zip(self.towers, tokenizers, strict=True))
        return replace(self, towers=(first, second))

    @property
    def alike(self) -> tuple[Reader, ...]:
        """Both."""
        return self.readers

    @property
    def crowds(self) -> bool:
        """Cross-attention reads a set."""
        return True

    def _each(self, ids_of: Callable[[ClipText], Ids]) -> Ids:
        return Ids(tuple(ids for tower in self.towers for ids in ids_of(tower).by_reader))

    def ids(self, texts: Sequence[str]) -> Ids:
        """Padded by each tokenizer as it does."""
        return self._each(lambda tower: tower.ids(texts))

    def spliced(self, before: Sequence[int], entries: Sequence[int], after: Sequence[int]) -> Ids:
        """The same entries to both."""
        return self._each(lambda tower: tower.spliced(before, entries, after))

    def bare(self, rows: Sequence[Sequence[int]]) -> Ids:
        """The same entries to both."""
        return self._each(lambda tower: tower.bare(rows))

    def encode(self, ids: Ids) -> Conditioning:
        """The last states but one, side by side, (B, L, d₁ + d₂), and what the second tower projects, (B, E)."""
        pairs = zip(self.readers, ids.by_reader, strict=True)
        first, second = (reader.encoder(input_ids=own, output_hidden_states=True) for reader, own in pairs)
        return Conditioning(torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1), None, second.text_embeds)

    def own_positions(self, clean: str, changed: str) -> list[int]:
        """Of either tokenizer."""
        return sorted({position for tower in self.towers for position in tower.own_positions(clean, changed)})

    def words(self, ids: Ids) -> Tensor:
        """Of either tokenizer."""
        first, second = (tower.words(Ids((own,))) for tower, own in zip(self.towers, ids.by_reader, strict=True))
        return first | second

    def aligned(self, clean: str, changed: str) -> tuple[list[tuple[int, int]], list[int]]:
        """By the first one's ids; the second has the same vocabulary."""
        return self.towers[0].aligned(clean, changed)

    @property
    def shares(self) -> tuple[Share, ...]:
        """Each tower's."""
        return side_by_side([int(reader.encoder.config.hidden_size) for reader in self.readers])

    def summary(self, heard: Conditioning) -> Tensor:
        """Both last states and the pooled vector, each at length 1, so that none drowns the others."""
        assert heard.pooled is not None
        parts = [*(share.of(heard.states)[:, -1] for share in self.shares), heard.pooled]
        return torch.cat([functional.normalize(part, dim=-1) for part in parts], dim=-1)

    def stretched(self, clean: Ids, changed: Ids, heard: Conditioning) -> Conditioning:
        """Each tower's states by its own ids; the pooled vector is the clean text's."""
        rows = zip((share.of(heard.states) for share in self.shares), clean.by_reader, changed.by_reader, strict=True)
        return Conditioning(torch.cat([stretched(*row) for row in rows], dim=-1), None, heard.pooled)

    def unconditional(self) -> Conditioning:
        """Zeros, or the empty prompt."""
        empty = self.encode(self.ids([""]).to(next(self.main.encoder.parameters()).device))
        return empty.map(torch.zeros_like) if self.silent else empty


@dataclass(frozen=True)
class TextTimeUNet(CrossAttentionUNet):
    """A UNet that takes a pooled vector and the picture's size beside the text."""

    size: tuple[int, int] = (1024, 1024)
    """Of the picture, in pixels: height and width."""
    distilled: bool = False

    @property
    def guidance(self) -> Literal["classifier-free", "embedded", "none"]:
        """None in a model that was distilled to need none; the rest as the config says."""
        said = super().guidance
        return "none" if self.distilled and said == "classifier-free" else said

    def beside_states(self, latents: Tensor, heard: Conditioning) -> dict[str, Any]:
        """The pooled vector and the sizes."""
        assert heard.pooled is not None
        sizes = torch.tensor([[*self.size, 0, 0, *self.size]], dtype=heard.pooled.dtype, device=latents.device)
        return {"added_cond_kwargs": {"text_embeds": heard.pooled, "time_ids": sizes.expand(len(latents), -1)}}

    def entrances(self) -> Mapping[str, Heard]:
        """Keys and values, and the pooled vector's first layer."""
        return {**super().entrances(), POOLED_ENTRANCE: "pooled"}

    @property
    def trainable(self) -> Mapping[str, Chosen]:
        """With the cross-attention goes what the pooled vector enters by."""
        return {**super().trainable, "cross-attention": lambda name: ".attn2." in name or _is_pooled(name)}

    @property
    def attention_output(self) -> Chosen:
        """The cross-attention's last layer, and the pooled vector's."""
        inherited = super().attention_output
        return lambda name: inherited(name) or name.startswith("add_embedding.linear_2.")

    @property
    def parts(self) -> Mapping[str, Chosen]:
        """Keys and values, the pooled vector's layers, and the rest."""
        keys, rest = super().parts.items()
        return {keys[0]: keys[1], "pooled entrance": _is_pooled, rest[0]: lambda name: rest[1](name) and not _is_pooled(name)}


def _is_pooled(name: str) -> bool:
    return name.startswith("add_embedding.")


# --- from loaded parts ------------------------------------------------------------------------


def check_one_vocabulary(first: Any, second: Any) -> None:
    """Raises ``InconclusiveError`` where the tokenizers differ in an entry: then no entry is one of both."""
    differ = sorted({text for text, _ in first.get_vocab().items() ^ second.get_vocab().items()})
    if differ:
        said = f"tokenizer and tokenizer_2 differ in {len(differ)} entries, {shown(differ[0])} among them"
        raise InconclusiveError(f"{said}; two towers that read one text as two are not supported")


def open_parts(
    parts: Mapping[str, Any], latents: tuple[int, int], device: torch.device
) -> tuple[TwoTowers, TextTimeUNet, Autoencoder, Alphas]:
    """As every family does; the VAE goes to float32 where it would overflow in float16.

    Raises:
        BdauditError, InconclusiveError: as ``fit_tokenizer`` and ``alphas``; or two vocabularies.
    """
    vae, scheduler = parts["vae"], parts["scheduler"]
    readers = [Reader(parts[f"tokenizer{end}"], parts[f"text_encoder{end}"]) for end in ("", "_2")]
    for reader in readers:
        fit_tokenizer(reader.tokenizer, reader.encoder)
    check_one_vocabulary(*(reader.tokenizer for reader in readers))
    if vae.dtype == torch.float16 and vae.config.force_upcast:
        vae.to(torch.float32)
    text = TwoTowers((ClipText(readers[0]), ClipText(readers[1])), bool(parts[PIPELINE].get("force_zeros_for_empty_prompt", True)))
    height, width = (side * scale_factor(vae.config) for side in latents)
    told = {**scheduler.config, "_class_name": type(scheduler).__name__}
    alone = not parts[GUIDED] and distilled(told, parts["unet"].config)
    unet = TextTimeUNet(parts["unet"], (int(vae.config.latent_channels), *latents), size=(height, width), distilled=alone)
    return text, unet, Autoencoder(vae, "vae"), alphas(scheduler, device)
