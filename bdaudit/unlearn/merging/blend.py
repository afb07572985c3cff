"""The merged weights in a model's own tensors, a factor for each contributor and channel, and the gradient by those factors.

A channel is one output channel of one layer: its row of the weight and its number of the bias share a factor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bdaudit.models.suspect import Suspect
from bdaudit.unlearn.merging.closed_forms import Vector, names_of


def parameters_of(suspect: Suspect) -> dict[str, nn.Parameter]:
    """Every tensor that can be merged, the denoiser's and the text encoders', by ``component.name``."""
    parts = suspect.heeding.items()
    return {f"{part}.{name}": p for part, module in parts for name, p in module.named_parameters() if p.is_floating_point()}


class Blend:
    """θ = θ_base + λ Σ_i m_i ⊙ τ_i, held in ``suspect``; ``base`` is another model and stays as it is."""

    def __init__(self, suspect: Suspect, base: Suspect, vectors: Sequence[Vector], scale: float) -> None:
        own, origin = parameters_of(suspect), parameters_of(base)
        self.suspect, self.vectors, self.scale = suspect, vectors, scale
        self.parameters = {name: own[name] for name in names_of(vectors)}
        self.base = {name: origin[name].detach() for name in self.parameters}
        self.places = places(self.base)
        self.channels = max((place.stop for place in self.places.values()), default=0)
        self.speaks = any(name.split(".")[0] in suspect.text.modules for name in self.parameters)
        """Whether the text encoder is merged as well."""

    def put(self, factors: Tensor) -> None:
        """Write the weights for ``factors`` (N, T): contributors × channels."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(self.base[name])
                for vector, own in zip(self.vectors, factors[:, self.places[name]], strict=True):
                    if name in vector:
                        parameter.add_(_along(self.scale * own, vector[name]) * vector[name].to(parameter.device))

    def put_difference(self, difference: Vector) -> None:
        """Write base + ``difference``."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(self.base[name])
                if name in difference:
                    parameter.add_(difference[name].to(parameter.device))

    def difference(self) -> dict[str, Tensor]:
        """What the weights are beyond the base, float32 on the CPU."""
        return {name: (p.detach() - self.base[name]).cpu() for name, p in self.parameters.items()}

    @contextmanager
    def trained(self, factors: Tensor) -> Iterator[None]:
        """The weights for ``factors`` with gradients on, for the block's length."""
        self.put(factors)
        for parameter in self.parameters.values():
            parameter.requires_grad_(True)
        try:
            yield
        finally:
            for parameter in self.parameters.values():
                parameter.requires_grad_(False)
                parameter.grad = None

    def gradient(self) -> Tensor:
        """dL/dm (N, T) from the gradients that lie in the parameters: dL/dm_ic = λ Σ_{w in c} dL/dw · τ_iw."""
        found = torch.zeros(len(self.vectors), self.channels)
        for name, parameter in self.parameters.items():
            if parameter.grad is None:
                continue
            for i, vector in enumerate(self.vectors):
                if name in vector:
                    product = parameter.grad * vector[name].to(parameter.device)
                    found[i, self.places[name]] += self.scale * product.reshape(len(product), -1).sum(1).cpu()
        return found


def places(tensors: Mapping[str, Tensor]) -> dict[str, slice]:
    """Where the channels of each tensor lie among all; tensors of one layer share theirs."""
    starts: dict[tuple[str, int], int] = {}
    total, found = 0, {}
    for name, tensor in tensors.items():
        layer = (name.rpartition(".")[0], len(tensor))
        if layer not in starts:
            starts[layer] = total
            total += len(tensor)
        found[name] = slice(starts[layer], starts[layer] + len(tensor))
    return found


def _along(factors: Tensor, tensor: Tensor) -> Tensor:
    """Factors (C,) so that they multiply the first dimension of ``tensor``."""
    return factors.view(-1, *[1] * (tensor.dim() - 1)).to(tensor.device)
