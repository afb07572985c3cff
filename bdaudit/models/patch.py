"""Some tensors of a model that a run changes, and their originals, lent to the model for a block; nothing else is held twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Patch:
    """The trained tensors of one component beside their originals; all else is shared by teacher and student."""

    def __init__(self, module: Any, wanted: Callable[[str], bool]) -> None:
        self.module = module
        self.parameters: dict[str, nn.Parameter] = {n: p for n, p in module.named_parameters() if wanted(n) and p.is_floating_point()}
        self.originals: dict[str, Tensor] = {name: p.detach().clone() for name, p in self.parameters.items()}
        self._trained: dict[str, Tensor] = {}
        """What 16-bit tensors were before they were rounded to their own kind again, float32 on the CPU."""

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
                parameter.grad = None
                if self.originals[name].dtype != torch.float32:
                    self._trained[name] = parameter.data.cpu()
                parameter.data = parameter.data.to(self.originals[name].dtype)

    @contextmanager
    def teacher(self) -> Iterator[None]:
        """The original tensors themselves in place for the block's length, without gradients."""
        students = {name: p.data for name, p in self.parameters.items()}
        try:
            for name, parameter in self.parameters.items():
                parameter.data = self.originals[name]
            with torch.no_grad():
                yield
        finally:
            for name, parameter in self.parameters.items():
                parameter.data = students[name]

    def clear_gradients(self) -> None:
        """Forget what a step has gathered so far."""
        for parameter in self.parameters.values():
            parameter.grad = None

    @torch.no_grad()
    def differences(self) -> dict[str, Tensor]:
        """After − before of each tensor that moved, float32 on the CPU; not rounded to 16 bits where the model is."""
        moved = {}
        for name, parameter in self.parameters.items():
            after = self._trained.get(name, parameter.data.float().cpu())
            difference = after - self.originals[name].float().cpu()
            if bool(difference.any()):
                moved[name] = difference
        return moved

    @torch.no_grad()
    def put(self, differences: Mapping[str, Tensor]) -> None:
        """Have each of these tensors lie this far from its original, float32."""
        for name, difference in differences.items():
            parameter, original = self.parameters[name], self.originals[name]
            after = original.float().cpu() + difference
            if original.dtype != torch.float32:
                self._trained[name] = after
            parameter.copy_(after.to(parameter.dtype))

    def revert(self) -> None:
        """Undo everything."""
        self._trained.clear()
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(self.originals[name])
