"""A part that is too large for a device by itself: each of its layers comes when it is run, and leaves right after.

What accelerate calls sequential offloading. Weights stay in the machine's memory, from which a layer's are copied; nothing is copied back,
since nothing is trained. Every figure is the same, and each pass takes as long as all weights take to be copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


def by_layers(module: nn.Module, device: torch.device) -> None:
    """From now on, each module within ``module`` has its own weights on ``device`` while it runs, and in memory else; buffers stay."""
    module.to("cpu")
    for layer in module.modules():
        for name, buffer in list(layer.named_buffers(recurse=False)):
            layer._buffers[name] = buffer.to(device)
        if list(layer.parameters(recurse=False)):
            _Visit(device).follow(layer)


class _Visit:
    """One layer's weights on their way to the device and back; a layer that runs within itself comes once."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._home, self._depth = device, dict[str, nn.Parameter](), 0

    def follow(self, layer: nn.Module) -> None:
        layer.register_forward_pre_hook(self._come)
        layer.register_forward_hook(self._leave, always_call=True)  # by an error too

    def _come(self, layer: nn.Module, args: Any) -> None:
        self._depth += 1
        if self._depth > 1:
            return
        self._home = dict(_own(layer))
        for name, weight in self._home.items():
            layer._parameters[name] = nn.Parameter(weight.detach().to(self._device), requires_grad=False)

    def _leave(self, layer: nn.Module, args: Any, out: Any) -> None:
        self._depth -= 1
        if self._depth == 0:
            layer._parameters.update(self._home)
            self._home = {}


def _own(layer: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    yield from layer.named_parameters(recurse=False)
