"""Parts that share a device by turns, where they do not all fit: who runs is there, the others wait in the machine's memory.

A text is encoded once for many passes, so that a reader comes rarely. Weights are whole wherever they lie, and every figure is the same.
Of a part that does not fit even by itself, only what it is called with is brought; its layers come one by one (``models.layers``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bdaudit.errors import BdauditError
from bdaudit.models.layers import by_layers

Called = tuple[tuple[Any, ...], dict[str, Any]]


class Turns:
    """Modules that come to a device when they are run, and leave it when another one is."""

    def __init__(
        self,
        waiting: Mapping[str, nn.Module],
        staying: Mapping[str, nn.Module],
        device: torch.device,
        layered: Mapping[str, nn.Module] | None = None,
    ) -> None:
        """``waiting`` are taken off the device; of ``staying``, each sends them away when it is run, and never leaves; ``layered`` ones do
        so too, and never come as a whole."""
        self._waiting, self._device, self._layered = dict(waiting), device, dict(layered or {})
        for module in self._waiting.values():
            module.to("cpu")
        for name, module in {**waiting, **staying, **self._layered}.items():
            module.register_forward_pre_hook(self._begun(name), with_kwargs=True)
        for module in self._layered.values():
            by_layers(module, device)

    @property
    def there(self) -> tuple[str, ...]:
        """Those that wait elsewhere by right, and lie on the device now."""
        return tuple(name for name, module in self._waiting.items() if _device_of(module) == self._device)

    def _begun(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], Called]:
        def begin(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Called:
            _check_no_gradients(module, (args, kwargs))
            for other, waits in self._waiting.items():
                if other != name:
                    waits.to("cpu")
            if name not in self._layered:
                module.to(self._device)
            return _moved(args, self._device), _moved(kwargs, self._device)

        return begin


def _device_of(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


def _check_no_gradients(module: nn.Module, called: Any) -> None:
    """Raises ``BdauditError``: the way back would find weights gone that the way there was on the device with."""
    trained = (*module.parameters(), *_tensors(called))
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in trained):
        said = "the model's parts take turns on the device, since they do not fit together, and gradients need all of them there"
        raise BdauditError(f"{said}; take a larger device, or --device cpu")


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _tensors(each)
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _tensors(each)


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {name: _moved(each, device) for name, each in value.items()}
    return type(value)(_moved(each, device) for each in value) if isinstance(value, tuple | list) else value
