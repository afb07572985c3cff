"""Recording cross-attention: explicit softmax inside a ``with`` block, fused attention everywhere else.

Each recording is an object of its own; nothing is global, and after the block every processor is the one from before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class Recording:
    """Cross-attention probabilities by layer name, mean over heads, of the passes since the last ``clear``."""

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


class _Recorder:
    """A diffusers attention processor that computes softmax(QKᵀ/√d)V by hand and keeps the probabilities."""

    def __init__(self, name: str, recording: Recording) -> None:
        self.name, self.recording = name, recording

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))
        key = attn.head_to_batch_dim(attn.to_k(context))
        value = attn.head_to_batch_dim(attn.to_v(context))
        probabilities = attn.get_attention_scores(query, key, attention_mask)
        heads = torch.unflatten(probabilities, 0, (-1, attn.heads)).float().mean(1)
        self.recording.add(self.name, heads)
        out: Tensor = attn.to_out[0](attn.batch_to_head_dim(torch.bmm(probabilities, value)))
        return out / float(attn.rescale_output_factor)


def cross_attention_layers(unet: Any) -> dict[str, Any]:
    """Layer name → module, in the order that the UNet runs them."""
    order = {"down_blocks": 0, "mid_block": 1, "up_blocks": 2}
    found = {name: module for name, module in unet.named_modules() if name.endswith("attn2")}
    return dict(sorted(found.items(), key=lambda item: order[item[0].split(".")[0]]))


@contextmanager
def recorded(unet: Any, keep: Callable[[str], bool] = lambda name: True) -> Iterator[Recording]:
    """Record the cross-attention layers that ``keep`` names for the block's length; gradients flow through the maps."""
    recording = Recording()
    layers = {name: module for name, module in cross_attention_layers(unet).items() if keep(name)}
    before = {name: module.processor for name, module in layers.items()}
    try:
        for name, module in layers.items():
            module.processor = _Recorder(name, recording)
        yield recording
    finally:
        for name, module in layers.items():
            module.processor = before[name]


def token_share(maps: Tensor, positions: Sequence[Sequence[int]]) -> Tensor:
    """Share of all attention that each row's own positions draw: (B, H·W, L) and B lists → (B,), 0 to 1."""
    return torch.stack([row[:, list(own)].sum(-1).mean() if own else row.new_zeros(()) for row, own in zip(maps, positions, strict=True)])
