"""LoRA adapters: a safetensors file inspected like the model, its products added to the weights for a block's length.

W ← W + scale · α/r · B·A (2106.09685), by our own arithmetic, so that an adapter needs no further library and runs no code. The three
spellings in use are read: peft's (``lora_A``/``lora_B``), diffusers' older one (``lora.down``/``lora.up``, attention processors) and
kohya's (``lora_unet_…``, ``lora_te_…``). Other decompositions (DoRA, LoHa, LoKr) end in "not supported", never in half an adapter.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_bytes
from torch import Tensor

from bdaudit.errors import BdauditError, InconclusiveError, UsageError
from bdaudit.models.suspect import Suspect
from bdaudit.untrusted.inspect import File
from bdaudit.untrusted.safetensors_header import MAX_ITEMS, read_header
from bdaudit.untrusted.tree import Reader, parse_json, shown

LARGEST = 4 << 30
"""Bytes of an adapter; those in use have up to 0.3 GB."""
_FOREIGN = ("hada_", "lokr_", "dora_scale", "lora_magnitude_vector", "oft_", "ia3_", "lora_mid", "lora_embedding", "bias")
_SPELLINGS = (
    (re.compile(r"(?P<module>.+)\.lora_A(\.default)?\.weight"), "down"),
    (re.compile(r"(?P<module>.+)\.lora_B(\.default)?\.weight"), "up"),
    (re.compile(r"(?P<module>.+?)[._]lora(\.|_linear_layer\.|_)down\.weight"), "down"),
    (re.compile(r"(?P<module>.+?)[._]lora(\.|_linear_layer\.|_)up\.weight"), "up"),
    (re.compile(r"(?P<module>.+)\.alpha"), "alpha"),
)
_COMPONENTS = {"unet": "unet", "text_encoder": "text_encoder", "lora_unet": "unet", "lora_te": "text_encoder", "lora_te1": "text_encoder"}


@dataclass(frozen=True)
class Adapter:
    """One file and what it adds: (component, parameter) → product, on the CPU in float32, scale not yet in it."""

    file: File
    scale: float
    deltas: Mapping[tuple[str, str], Tensor]


def read_adapter(path: Path, scale: float, suspect: Suspect) -> Adapter:
    """Inspect and read one adapter for ``suspect``.

    Raises:
        UsageError: no such regular file, or not a ``.safetensors``.
        RefusedError: a pickle under that name.
        BdauditError: damaged, not finite, or it does not fit the model.
        InconclusiveError: another decomposition than plain LoRA.
    """
    tensors, told, file = _tensors(path)
    parts = _parts(tensors, path)
    modules = {name: _modules(suspect.modules[name]) for name in ("unet", "text_encoder")}
    deltas: dict[tuple[str, str], Tensor] = {}
    for name, held in parts.items():
        component, module = _place(name, modules, path)
        if not {"down", "up"} <= set(held):
            raise BdauditError(f"{shown(path)}: {shown(name)} has {' and '.join(sorted(held))} alone; a LoRA needs down and up")
        if (component, module + ".weight") in deltas:
            raise BdauditError(f"{shown(path)}: {shown(name)} is there twice, under two spellings; the adapter is damaged")
        alpha = {"alpha": torch.tensor(told[component])} if component in told else {}
        weight = modules[component][module]
        deltas[component, module + ".weight"] = _product({**held, **alpha}, weight.shape, f"{shown(path)}: {shown(name)}")
    if not deltas:
        raise BdauditError(f"{shown(path)} holds no LoRA")
    return Adapter(file, scale, deltas)


@contextmanager
def applied(suspect: Suspect, adapters: Sequence[Adapter]) -> Iterator[None]:
    """The adapters' products are in the weights for the block's length; after it every weight is the one from before."""
    names = {key for adapter in adapters for key in adapter.deltas}
    weights = {key: suspect.modules[key[0]].get_parameter(key[1]) for key in sorted(names)}
    before = {key: weight.detach().clone() for key, weight in weights.items()}
    try:
        with torch.no_grad():
            for key, weight in weights.items():
                whole = sum(adapter.scale * adapter.deltas[key] for adapter in adapters if key in adapter.deltas)
                weight.copy_((weight.float() + torch.as_tensor(whole).to(weight.device)).to(weight.dtype))
        yield
    finally:
        with torch.no_grad():
            for key, weight in weights.items():
                weight.copy_(before[key])


def _tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, float], File]:
    """Tensors, and α by component where the header tells it. The checked bytes are the loaded bytes: the file is read once."""
    if path.suffix != ".safetensors" or not path.is_file():
        raise UsageError(f"--lora {shown(path)}: expected a .safetensors file; a pickle is never opened")
    size = path.stat().st_size
    if size > LARGEST:
        raise BdauditError(f"{shown(path)} has {size:,} bytes; at most {LARGEST:,} are read of an adapter")
    reader = Reader(path.resolve().parent, {path.resolve().name: size})
    name = path.resolve().name
    read_header(reader, name)
    with reader.open(name) as file:
        data = file.read(size + 1)
    if not data.startswith(reader.checked[name]) or len(data) != size:
        raise BdauditError(f"{shown(path)} changed while it was being read")
    reader.checked[name] = data
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    told = parse_json(header.get("__metadata__", {}).get("lora_adapter_metadata", "{}").encode("utf-8"), name, MAX_ITEMS)
    if not isinstance(told, dict):
        raise BdauditError(f"{shown(path)}: lora_adapter_metadata in its header is no map of settings")
    return load_bytes(data), _alphas(told, path), File(path=str(path), bytes=size, sha256=reader.sha256(name))


def _alphas(told: dict[str, Any], path: Path) -> dict[str, float]:
    """Component → α, by the adapter's own settings in the file's header: diffusers goes by them, whatever the tensors say.

    Raises:
        BdauditError: α is no finite number.
        InconclusiveError: they ask for more than one α a component.
    """
    other = [name for name, value in told.items() if name.rpartition(".")[2] in ("alpha_pattern", "use_rslora", "use_dora") and value]
    if other:
        raise InconclusiveError(f"{shown(path)}: its header sets {shown(other[0])}; only plain LoRA with one alpha is supported")
    found = {}
    for component in ("unet", "text_encoder"):
        alpha = told.get(f"{component}.lora_alpha", told.get("lora_alpha"))
        if alpha is not None and (isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha)):
            raise BdauditError(f"{shown(path)}: lora_alpha in its header is {shown(alpha)}; expected a number")
        if alpha is not None:
            found[component] = float(alpha)
    return found


def _parts(tensors: Mapping[str, Tensor], path: Path) -> dict[str, dict[str, Tensor]]:
    """Module, as the file spells it → down, up, alpha."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if any(mark in name for mark in _FOREIGN):
            raise InconclusiveError(f"{shown(path)}: {shown(name)} belongs to another decomposition than plain LoRA; it is not supported")
        found = next(((match["module"], role) for spelling, role in _SPELLINGS if (match := spelling.fullmatch(name))), None)
        if found is None:
            raise BdauditError(f"{shown(path)}: {shown(name)} is no part of a LoRA; expected lora_A/lora_B, lora.down/up or lora_down/up")
        if not bool(torch.isfinite(tensor.float()).all()):
            raise BdauditError(f"{shown(path)}: {shown(name)} holds NaN or infinity; the adapter is damaged")
        parts.setdefault(found[0], {})[found[1]] = tensor.float()
    return parts


def _modules(model: torch.nn.Module) -> dict[str, Tensor]:
    """Module → weight, of every layer that a LoRA can add to."""
    layers = (torch.nn.Linear, torch.nn.Conv2d)
    return {name: module.weight.detach() for name, module in model.named_modules() if isinstance(module, layers)}


def _place(name: str, modules: Mapping[str, Mapping[str, Tensor]], path: Path) -> tuple[str, str]:
    """Which component's which module a name stands for, whatever its spelling."""
    head, _, rest = name.partition(".")
    for kohya in ("lora_unet", "lora_te1", "lora_te"):
        if name.startswith(kohya + "_"):
            head, rest = kohya, name[len(kohya) + 1 :]
    component = _COMPONENTS.get(head, "unet")
    wanted = _flat(rest if head in _COMPONENTS else name)
    for module in modules[component]:
        if _flat(module).removeprefix("text_model_") == wanted.removeprefix("text_model_"):
            return component, module
    raise BdauditError(f"{shown(path)}: {shown(name)} names no layer of this model; the adapter is for another one")


def _flat(name: str) -> str:
    """Dots as underscores; diffusers' older names of attention processors as the layers they stand for."""
    flat = name.removeprefix("base_model.model.").replace(".processor", "").replace(".", "_")
    return re.sub(r"_to_out$", "_to_out_0", flat)


def _product(held: Mapping[str, Tensor], shape: torch.Size, where: str) -> Tensor:
    """α/r · B·A in the weight's own shape; for convolutions A has the kernel and B is 1×1."""
    down, up = held["down"], held["up"]
    rank = down.shape[0]
    fits = up.ndim >= 2 and down.ndim >= 2 and rank > 0 and up.shape[1] == rank and up[0, 0].numel() == 1
    if not fits or up.shape[0] * down[0].numel() != shape.numel() or up.shape[0] != shape[0]:
        raise BdauditError(f"{where}: down {tuple(down.shape)} and up {tuple(up.shape)} do not make a weight of shape {tuple(shape)}")
    alpha = float(held["alpha"]) if "alpha" in held and held["alpha"].numel() == 1 else float(rank)
    return (alpha / rank) * (up.flatten(1) @ down.flatten(1)).reshape(shape)
