"""What is trained, and the teacher: the original values of exactly those tensors, lent to the model for a block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

TRAINABLE: dict[str, Callable[[str], bool]] = {
    "cross-attention": lambda name: ".attn2." in name,
    "whole": lambda name: True,
}
"""Which parameters of a component each scope trains, by name."""


class Patch:
    """The trained tensors of one component beside their originals; all else is shared by teacher and student."""

    def __init__(self, module: Any, scope: str) -> None:
        wanted = TRAINABLE[scope]
        self.module = module
        self.parameters: dict[str, nn.Parameter] = {n: p for n, p in module.named_parameters() if wanted(n) and p.is_floating_point()}
        self.originals: dict[str, Tensor] = {name: p.detach().clone() for name, p in self.parameters.items()}

    @contextmanager
    def training(self) -> Iterator[None]:
        """Gradients on for the trained tensors, in float32, for the block's length."""
        for parameter in self.parameters.values():
            parameter.data = parameter.data.float()
            parameter.requires_grad = True
        try:
            yield
        finally:
            for name, parameter in self.parameters.items():
                parameter.requires_grad = False
                parameter.data = parameter.data.to(self.originals[name].dtype)
                parameter.grad = None

    @contextmanager
    def teacher(self) -> Iterator[None]:
        """The original tensors in place for the block's length, without gradients."""
        students = {name: p.data for name, p in self.parameters.items()}
        try:
            for name, parameter in self.parameters.items():
                parameter.data = self.originals[name].to(students[name].dtype)
            with torch.no_grad():
                yield
        finally:
            for name, parameter in self.parameters.items():
                parameter.data = students[name]

    def groups(self, relative_rate: float) -> list[dict[str, Any]]:
        """Optimiser groups in which a step of Adam changes each tensor by ``relative_rate`` of its own RMS, whatever the model's scale."""
        return [
            {"params": [p], "lr": relative_rate * max(float(self.originals[n].float().square().mean().sqrt()), 1e-3)}
            for n, p in self.parameters.items()
        ]

    def changes(self) -> dict[str, float]:
        """‖after − before‖ / ‖before‖ of each tensor that moved."""
        moved = {}
        for name, parameter in self.parameters.items():
            before = self.originals[name].float()
            change = float((parameter.detach().float() - before).norm() / before.norm().clamp_min(1e-12))
            if change > 0:
                moved[name] = change
        return moved

    def revert(self) -> None:
        """Undo everything."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(self.originals[name])
