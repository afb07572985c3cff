"""Recording where a text is looked at, in any attention that runs through ``scaled_dot_product_attention``.

A tap sees the very queries, keys and mask that a layer's fused attention gets, after norms and rotations, and computes the softmax of
image queries over text keys beside it. The call itself is untouched, so that recording changes no output. Each recording is an object of
its own; nothing is global, and after the block no hook is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

Layout = Callable[[int, int], tuple[slice, slice]]
"""Numbers of queries and keys → which queries are the image's, and which keys the text's."""


def cross(queries: int, keys: int) -> tuple[slice, slice]:
    """Cross-attention: every query is the image's, every key the text's."""
    return slice(0, queries), slice(0, keys)


def image_first(queries: int, keys: int, text: int) -> tuple[slice, slice]:
    """Joint attention of a picture and the ``text`` tokens behind it."""
    return slice(0, queries - text), slice(keys - text, keys)


def text_first(queries: int, keys: int, text: int) -> tuple[slice, slice]:
    """Joint attention of ``text`` tokens and the picture behind them."""
    return slice(text, queries), slice(0, text)


def text_then_picture(queries: int, keys: int, picture: int) -> tuple[slice, slice]:
    """Joint attention of a batch's text tokens, as many as its longest has, and ``picture`` tokens behind them."""
    return slice(queries - picture, queries), slice(0, keys - picture)


def picture_then_text(queries: int, keys: int, picture: int, filled: int) -> tuple[slice, slice]:
    """Joint attention of ``picture`` tokens, some that fill them up, and a batch's text tokens, as many as its longest has."""
    return slice(0, picture), slice(picture + filled, keys)


@dataclass(frozen=True)
class Site:
    """A module whose attention is recorded, and how its queries and keys lie."""

    module: torch.nn.Module
    layout: Layout = cross
    text: int = 0
    """Columns that each map has, noughts where a batch's texts are shorter; as many as there are keys where it is 0."""


@dataclass
class Recording:
    """Attention probabilities by layer name, mean over heads, of the passes since the last ``clear``."""

    maps: dict[str, list[Tensor]] = field(default_factory=dict)
    """Layer → one tensor (B, H·W, L) a forward pass."""
    closed: bool = False

    def add(self, name: str, probabilities: Tensor) -> None:
        """One layer's map of a pass, (B, H·W, L); dropped once closed."""
        if not self.closed:
            self.maps.setdefault(name, []).append(probabilities)

    def close(self) -> None:
        """Forget all passes and keep no other: gradient checkpointing runs layers again, and a map kept then holds their activations."""
        self.clear()
        self.closed = True

    def clear(self) -> None:
        """Forget all passes."""
        self.maps.clear()

    def latest(self) -> dict[str, Tensor]:
        """Layer → (B, H·W, L) of the last pass."""
        return {name: passes[-1] for name, passes in self.maps.items()}


class _Tap(TorchFunctionMode):
    """Entered before a layer runs and left behind it; hears each fused attention in between."""

    def __init__(self, name: str, site: Site, recording: Recording, averaged: bool) -> None:
        super().__init__()
        self.name, self.site, self.recording = name, site, recording
        self.probabilities = _average if averaged else _probabilities

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is scaled_dot_product_attention:  # once closed too: what checkpointing computes again must be the same
            named = dict(zip(("query", "key", "value", "attn_mask"), args, strict=False)) | kwargs
            mask, scale = named.get("attn_mask"), named.get("scale")
            maps = self.probabilities(named["query"], named["key"], mask, scale, self.site.layout)
            lacking = max(0, self.site.text - maps.shape[-1]) if self.site.text else 0
            kept = maps[..., : self.site.text] if self.site.text else maps  # a text is filled up beyond its longest, too
            self.recording.add(self.name, pad(kept, (0, lacking)) if lacking else kept)
        return function(*args, **kwargs)


def _probabilities(query: Tensor, key: Tensor, mask: Tensor | None, scale: float | None, layout: Layout) -> Tensor:
    """softmax(QKᵀ·scale + mask) of the image's queries over all keys, the text's columns of it, mean over heads: (B, H·W, L) float32."""
    image, text = layout(query.shape[-2], key.shape[-2])
    scores = query[..., image, :] @ key.transpose(-1, -2) * (scale or query.shape[-1] ** -0.5)
    if mask is not None:
        added = mask if mask.dtype != torch.bool else torch.zeros_like(mask, dtype=scores.dtype).masked_fill(~mask, -torch.inf)
        scores = scores + (added[..., image, :] if added.shape[-2] > 1 else added)
    return scores.softmax(-1)[..., text].float().mean(1)


def _average(query: Tensor, key: Tensor, mask: Tensor | None, scale: float | None, layout: Layout) -> Tensor:
    """The mean of the same over pixels, a head at a time, so that no map is ever held: (B, 1, L) float32."""
    total = torch.zeros((), device=query.device)
    for i in range(query.shape[1]):
        head = slice(i, i + 1)
        own = mask if mask is None or mask.dim() < 4 or mask.shape[1] == 1 else mask[:, head]
        total = total + _probabilities(query[:, head], key[:, head], own, scale, layout).mean(1, keepdim=True)
    return total / query.shape[1]


@contextmanager
def recorded(sites: Mapping[str, Site], keep: Callable[[str], bool] = lambda name: True, *, averaged: bool = False) -> Iterator[Recording]:
    """Record the layers that ``keep`` names for the block's length; gradients flow through the maps.

    ``averaged`` maps are the mean over pixels alone, (B, 1, L): at full size whole ones are half a GB a latent.
    """
    recording, handles = Recording(), list[Any]()
    entered: dict[str, list[_Tap]] = {name: [] for name in sites}

    def before(name: str, site: Site) -> Callable[..., None]:
        def enter(*_: Any) -> None:
            entered[name].append(_Tap(name, site, recording, averaged))
            entered[name][-1].__enter__()  # type: ignore[no-untyped-call]

        return enter

    def behind(name: str) -> Callable[..., None]:
        def leave(*_: Any) -> None:
            entered[name].pop().__exit__(None, None, None)  # type: ignore[no-untyped-call]

        return leave

    try:
        for name, site in sites.items():
            if keep(name):
                handles.append(site.module.register_forward_pre_hook(before(name, site)))
                handles.append(site.module.register_forward_hook(behind(name), always_call=True))
        yield recording
    finally:
        for handle in handles:
            handle.remove()


def token_share(maps: Tensor, positions: Sequence[Sequence[int]]) -> Tensor:
    """Share of all attention that each row's own positions draw: (B, H·W, L) and B lists → (B,), 0 to 1."""
    return torch.stack([row[:, list(own)].sum(-1).mean() if own else row.new_zeros(()) for row, own in zip(maps, positions, strict=True)])
