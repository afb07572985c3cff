"""Stable Diffusion 1.x and 2.x: one CLIP reads, its last hidden states are all that a UNet hears of a text, by cross-attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, Self

import torch
from torch import Tensor

from bdaudit.errors import BdauditError, InconclusiveError
from bdaudit.models.attention import Site
from bdaudit.models.conditioning import Conditioning
from bdaudit.models.decoder import Autoencoder
from bdaudit.models.denoiser import Chosen, Heard
from bdaudit.models.schedule import Alphas
from bdaudit.models.text import Ids, Reader, Share
from bdaudit.models.tokens import Tokenizer, aligned, content_ids, content_mask, own_positions, row_of, stretched, token_ids


@dataclass(frozen=True)
class ClipText:
    """A CLIP's text tower."""

    main: Reader

    @property
    def readers(self) -> tuple[Reader, ...]:
        """The one."""
        return (self.main,)

    @property
    def alike(self) -> tuple[Reader, ...]:
        """The one."""
        return (self.main,)

    @property
    def crowds(self) -> bool:
        """Cross-attention reads a set."""
        return True

    @property
    def modules(self) -> Mapping[str, torch.nn.Module]:
        """The tower."""
        return {"text_encoder": self.main.encoder}

    def with_tokenizers(self, tokenizers: Sequence[Tokenizer]) -> Self:
        """The same tower with another tokenizer."""
        return replace(self, main=replace(self.main, tokenizer=tokenizers[0]))

    def ids(self, texts: Sequence[str]) -> Ids:
        """Padded and cut at the model's length."""
        return Ids((token_ids(self.main.tokenizer, texts),))

    def spliced(self, before: Sequence[int], entries: Sequence[int], after: Sequence[int]) -> Ids:
        """A row that gets too long is cut at the model's length, like any prompt."""
        return Ids((torch.tensor([row_of(self.main.tokenizer, [*before, *entries, *after])]),))

    def bare(self, rows: Sequence[Sequence[int]]) -> Ids:
        """Start, entries, end."""
        tokenizer = self.main.tokenizer
        return Ids((torch.tensor([[tokenizer.bos_token_id, *row, tokenizer.eos_token_id] for row in rows]),))

    def encode(self, ids: Ids) -> Conditioning:
        """The last hidden states."""
        return Conditioning(self.main.encoder(input_ids=ids.by_reader[0]).last_hidden_state)

    def own_positions(self, clean: str, changed: str) -> list[int]:
        """Of the content; the start is 0."""
        return own_positions(self.main.tokenizer, clean, changed)

    def words(self, ids: Ids) -> Tensor:
        """Between start and end."""
        return content_mask(ids.by_reader[0], self.main.tokenizer.eos_token_id)

    def aligned(self, clean: str, changed: str) -> tuple[list[tuple[int, int]], list[int]]:
        """By ids."""
        return aligned(self.main.tokenizer, clean, changed)

    @property
    def shares(self) -> tuple[Share, ...]:
        """All of them."""
        return (Share(slice(None), slice(None)),)

    def summary(self, heard: Conditioning) -> Tensor:
        """The last state: causal attention makes it hear all words."""
        return heard.states[:, -1]

    def stretched(self, clean: Ids, changed: Ids, heard: Conditioning) -> Conditioning:
        """Aligned by ids."""
        return Conditioning(stretched(heard.states, clean.by_reader[0], changed.by_reader[0]))

    def unconditional(self) -> Conditioning:
        """The empty prompt."""
        device = next(self.main.encoder.parameters()).device
        return self.encode(self.ids([""]).to(device))


@dataclass(frozen=True)
class CrossAttentionUNet:
    """diffusers' UNet2DConditionModel."""

    module: Any
    latent_shape: tuple[int, int, int]
    name: str = "unet"

    @property
    def guidance(self) -> Literal["classifier-free", "embedded", "none"]:
        """A distilled UNet takes its guidance as an embedding beside the timestep's."""
        return "classifier-free" if getattr(self.module.config, "time_cond_proj_dim", None) is None else "embedded"

    def predict(self, latents: Tensor, t: Tensor, heard: Conditioning, scale: float) -> Tensor:
        """As the stock pipeline calls it."""
        told = self.beside_states(latents, heard)
        if self.guidance == "embedded":
            row = guidance_embedding(scale, self.module.config.time_cond_proj_dim)
            told["timestep_cond"] = row.to(latents.device, latents.dtype).expand(len(latents), -1)
        out: Tensor = self.module(latents, t, encoder_hidden_states=heard.states, return_dict=False, **told)[0]
        return out

    def beside_states(self, latents: Tensor, heard: Conditioning) -> dict[str, Any]:
        """What the stock pipeline tells it besides: nothing."""
        return {}

    @cached_property
    def _layers(self) -> dict[str, torch.nn.Module]:
        order = {"down_blocks": 0, "mid_block": 1, "up_blocks": 2}
        layers = {name: module for name, module in self.module.named_modules() if name.endswith("attn2")}
        return dict(sorted(layers.items(), key=lambda item: order[item[0].split(".")[0]]))

    def sites(self) -> Mapping[str, Site]:
        """The cross-attention layers."""
        return {name: Site(module) for name, module in self._layers.items()}

    @property
    def assimilates(self) -> bool:
        """Measured on the fixtures."""
        return True

    def entering(self, heard: Conditioning) -> Tensor:
        """As they are."""
        return heard.states

    def entrances(self) -> Mapping[str, Heard]:
        """Keys and values of the cross-attention."""
        return {f"{name}.{projection}.weight": "states" for name in self._layers for projection in ("to_k", "to_v")}

    @property
    def trainable(self) -> Mapping[str, Chosen]:
        """All of the cross-attention, the whole UNet."""
        return {
            "cross-attention": lambda name: ".attn2." in name,
            self.name: lambda name: True,
        }

    @property
    def attention_output(self) -> Chosen:
        """The cross-attention's last layer."""
        return lambda name: ".attn2.to_out." in name

    @property
    def parts(self) -> Mapping[str, Chosen]:
        """Keys and values, and the rest."""
        return {"cross-attention keys and values": _is_key_or_value, "rest of the UNet": lambda name: not _is_key_or_value(name)}


def _is_key_or_value(name: str) -> bool:
    return "attn2.to_k" in name or "attn2.to_v" in name


def guidance_embedding(scale: float, size: int) -> Tensor:
    """The guidance scale as the pipeline writes it for the UNet: sines and cosines of 1000 (scale − 1), float32 (1, size)."""
    half = size // 2
    rates = torch.exp(torch.arange(half, dtype=torch.float32) * -(torch.log(torch.tensor(10000.0)) / (half - 1)))
    angles = (torch.tensor([scale - 1.0]) * 1000.0)[:, None] * rates[None]
    return torch.nn.functional.pad(torch.cat([angles.sin(), angles.cos()], dim=1), (0, size % 2))


# --- from loaded parts ------------------------------------------------------------------------


def alphas(scheduler: Any, device: torch.device) -> Alphas:
    """The noise levels of a loaded scheduler.

    Raises:
        InconclusiveError: it predicts neither ε nor v, or has no table of noise levels.
        BdauditError: the table does not fall from below 1 to above 0.
    """
    prediction: Any = getattr(scheduler.config, "prediction_type", "epsilon")
    if prediction not in ("epsilon", "v_prediction"):
        raise InconclusiveError(f"the scheduler predicts {prediction!r}; only epsilon and v_prediction are supported")
    table = getattr(scheduler, "alphas_cumprod", None)
    if not isinstance(table, torch.Tensor):
        raise InconclusiveError(f"{type(scheduler).__name__} has no table of noise levels; only those of Stable Diffusion 1.x and 2.x have")
    lowest = 0 if prediction == "v_prediction" else torch.finfo(torch.float32).tiny
    steps = int(scheduler.config.num_train_timesteps)
    if table.shape != (steps,) or not bool(((table >= lowest) & (table < 1)).all()) or not bool(_falls(table).all()):
        raise BdauditError(f"the scheduler's noise levels do not fall from below 1 to above 0 in {steps} timesteps; its config is damaged")
    return Alphas(table.to(device), prediction)


def _falls(table: Tensor) -> Tensor:
    """Whether each level lies no higher than the one before; the last may be the 2⁻²⁴ that diffusers sets in place of a zero."""
    falls = table.diff() <= 0
    falls[-1:] |= table[-1] == 2**-24
    return falls


def fit_tokenizer(tokenizer: Tokenizer, text_encoder: Any) -> None:
    """Texts are cut at the length the text encoder has, whatever the tokenizer's config says; no id lies outside its embeddings.

    Raises:
        BdauditError: one does.
        InconclusiveError: texts are framed in another way than CLIP's tokenizers do it.
    """
    known = int(text_encoder.config.vocab_size)
    tokenizer.model_max_length = min(int(tokenizer.model_max_length), int(text_encoder.config.max_position_embeddings))
    ids = [*tokenizer.get_vocab().values(), *tokenizer("a").input_ids, tokenizer.eos_token_id, tokenizer.pad_token_id]
    if not all(type(i) is int and 0 <= i < known for i in ids):
        raise BdauditError(f"the tokenizer gives ids that the text encoder, with {known} embeddings, has not; they do not belong together")
    _check_frame(tokenizer)


def _check_frame(tokenizer: Tokenizer) -> None:
    """A text's ids stand between a start and an end, padding behind them, and too long a text loses its end: ids are put together so."""
    length = int(tokenizer.model_max_length)
    for text in ("", "a", " ".join("a" * length)):
        inner = content_ids(tokenizer, text)[: length - 2]
        framed = [tokenizer.bos_token_id, *inner, tokenizer.eos_token_id]
        if token_ids(tokenizer, [text])[0].tolist() != framed + [tokenizer.pad_token_id] * (length - len(framed)):
            raise InconclusiveError("the tokenizer does not put a text between a start and an end, padding behind them, as CLIP's does")


def open_parts(
    parts: Mapping[str, Any], latents: tuple[int, int], device: torch.device
) -> tuple[ClipText, CrossAttentionUNet, Autoencoder, Alphas]:
    """The text side, the denoiser, the decoder and the schedule of loaded parts; ``latents`` are drawn at that height and width.

    Raises:
        BdauditError, InconclusiveError: as ``fit_tokenizer`` and ``alphas``.
    """
    fit_tokenizer(parts["tokenizer"], parts["text_encoder"])
    text = ClipText(Reader(parts["tokenizer"], parts["text_encoder"]))
    unet = CrossAttentionUNet(parts["unet"], (int(parts["unet"].config.in_channels), *latents))
    return text, unet, Autoencoder(parts["vae"], "vae"), alphas(parts["scheduler"], device)
