"""The layers of a model that an adapter's names mean, by any spelling of them; of fused layers, each of those that lie in one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bdaudit.errors import InconclusiveError
from bdaudit.models.adapter_names import DENOISER, T5, Key
from bdaudit.models.pieces import halves_swapped
from bdaudit.untrusted.formats.names import flux, ldm_unet, mmdit
from bdaudit.untrusted.formats.names.renaming import Rows, Source
from bdaudit.untrusted.tree import shown

_TEXT_PROJECTION = re.compile(r"_to_(q|k|v|out)(_0)?$")
_ORIGINAL: Mapping[str, Callable[[Rows], dict[str, Source]]] = {
    "FluxTransformer2DModel": flux.sources_in_part,
    "SD3Transformer2DModel": mmdit.sources_in_part,
}
"""Class of a transformer → what its original code calls its layers."""
_XLABS = {
    "qkv_lora1": "img_attn.qkv", "qkv_lora2": "txt_attn.qkv", "proj_lora1": "img_attn.proj", "proj_lora2": "txt_attn.proj",
    "qkv_lora": "linear1", "proj_lora": "linear2",
}  # fmt: skip
"""XLabs' names in a block → the original code's; of ``linear1`` it changes queries, keys and values alone."""


@dataclass(frozen=True)
class Layer:
    """What one name means."""

    component: str
    names: tuple[str, ...]
    """The model's own modules, in the order in which they lie in one; mostly one."""
    modules: tuple[nn.Module, ...]
    swapped: bool = False
    """Whether the adapter has the halves of the outputs the other way round."""

    @property
    def module(self) -> nn.Module:
        """With the weight that the adapter is for: the model's own, or one made of several."""
        if len(self.modules) == 1 and not self.swapped:
            return self.modules[0]
        weight, bias = self._whole("weight"), self._whole("bias") if self.modules[0].bias is not None else None
        made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
        made.weight = nn.Parameter(weight, requires_grad=False)
        made.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        return made

    def _whole(self, parameter: str) -> Tensor:
        whole = torch.cat([module.get_parameter(parameter).detach() for module in self.modules])
        return halves_swapped(whole) if self.swapped else whole

    def apart(self, parameter: str, change: Tensor) -> dict[str, Tensor]:
        """The model's own parameters → what of a change of the whole is theirs."""
        change = halves_swapped(change) if self.swapped else change
        rows = [len(module.get_parameter(parameter)) for module in self.modules]
        each = zip(self.names, torch.split(change, rows), strict=True)
        return {f"{name}.{parameter}": part if len(rows) == 1 else part.clone() for name, part in each}


class Layers:
    """A model's modules with weights."""

    def __init__(self, components: Mapping[str, nn.Module]) -> None:
        self._named: dict[tuple[str, str], Layer] = {}
        """By component and the model's own name for it; of a UNet by the original code's too."""
        self._original: dict[tuple[str, str], Layer] = {}
        """The same of a transformer by the original code's names."""
        self._components = {component: type(model).__name__ for component, model in components.items()}
        for component, model in components.items():
            held = {name: module for name, module in model.named_modules() if isinstance(getattr(module, "weight", None), nn.Parameter)}
            for name, module in held.items():
                self._named[component, _flat(name, component)] = Layer(component, (name,), (module,))
            for name, source in ldm_unet.sources_in_part(held).items() if component == "unet" else ():
                self._named[component, _flat(source.name, component)] = Layer(component, (name,), (held[name],))
            if type(model).__name__ in _ORIGINAL:
                self._add_originals(component, model, held)

    def _add_originals(self, component: str, model: nn.Module, held: Mapping[str, nn.Module]) -> None:
        rows = {name: len(tensor) for name, tensor in model.state_dict().items() if tensor.ndim}
        together: dict[str, list[tuple[int, str, bool]]] = {}
        for name, source in _ORIGINAL[type(model).__name__](rows).items():
            own, stored = (each.removesuffix(".weight") for each in (name, source.name))
            if name.endswith(".weight") and source.name.endswith(".weight") and own in held:
                together.setdefault(stored, []).append(((source.rows or (0, 0))[0], own, source.swapped))
        for stored, parts in together.items():
            names = tuple(name for _, name, _ in sorted(parts))
            layer = Layer(component, names, tuple(held[name] for name in names), parts[0][2])
            self._original[component, stored.replace(".", "_")] = layer

    def find(self, key: Key, where: str, of: str = "") -> Layer:
        """What a key means; ``of`` is the class that the adapter was made on, where it says.

        Raises:
            InconclusiveError: no such layer, or component: the adapter is for another model; or a layer of several.
        """
        component = self._component(key)
        if component and component not in self._components:
            said = f"{where}: {shown(key.module)} is a layer of {key.component}, which this model has not"
            raise InconclusiveError(f"{said}; the adapter is for another family of models, and nothing of it was applied")
        asked = (component,) if component else [name for name, kind in self._components.items() if of in ("", kind)]
        found = [layer for name in asked if (layer := self._layer(name, key))]
        if not found:
            said = f"{where}: {shown(key.module)} names no layer of this model"
            raise InconclusiveError(f"{said}; the adapter is for another one, and nothing of it was applied")
        if len(found) > 1:
            said = f"{where}: {shown(key.module)} is a layer of {' and of '.join(layer.component for layer in found)}"
            raise InconclusiveError(f"{said}, and nothing says which is meant; write it in diffusers' or kohya's names, which do")
        return found[0]

    def _component(self, key: Key) -> str:
        """The model's own name of what a key is of; a name that it has not where there is none."""
        if key.component == DENOISER and key.family != "diffusers" and DENOISER not in self._components:
            return "transformer"
        if key.component == T5:
            return next((name for name, kind in self._components.items() if kind.startswith("T5")), T5)
        second_clip = key.component == "text_encoder_2" and key.family != "diffusers"
        if second_clip and self._components.get(key.component, "").startswith("T5"):
            return "text_encoder_2, a CLIP"
        return key.component

    def _layer(self, component: str, key: Key) -> Layer | None:
        if component == "transformer" and key.component == DENOISER:
            return self._of_xlabs(component, key.module) if key.family == "XLabs" else self._original.get((component, _plain(key.module)))
        return self._named.get((component, _flat(key.module, component)))

    def _of_xlabs(self, component: str, name: str) -> Layer | None:
        block, _, last = name.partition(".processor.")
        layer = self._original.get((component, _plain(f"{block}.{_XLABS[last]}")))
        if layer is None or last != "qkv_lora":
            return layer
        return Layer(component, layer.names[:3], layer.modules[:3])


def _plain(name: str) -> str:
    return name.replace(".", "_")


def _flat(name: str, component: str) -> str:
    """Dots as underscores; older diffusers' names of attention processors as the layers they stand for."""
    flat = re.sub(r"\.processor(?=\.|$)", "", name).replace(".", "_").removeprefix("text_model_")
    if component.startswith("text_encoder"):
        return _TEXT_PROJECTION.sub(r"_\1_proj", flat)
    return re.sub(r"_to_out$", "_to_out_0", flat)
