"""LoRA and its kin: a safetensors file inspected like the model, what it adds to the weights in them for a block's length.

W ← W + scale · α/r · B·A (2106.09685) and what LoCon, LoHa, LoKr, DoRA and full differences make of it, by our own arithmetic, so that an
adapter needs no further library and runs no code. α is read as the library that wrote the file has it: kohya's tensors, peft's
``adapter_config.json``, diffusers' header; diffusers' spelling without any has α = r. What two loaders would read differently, or leave
out, ends in "not supported", never in half an adapter.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bdaudit.errors import BdauditError, InconclusiveError, UsageError
from bdaudit.models.adapter_file import adapter_file, settings_beside
from bdaudit.models.adapter_layers import Layers
from bdaudit.models.adapter_names import Family, Key, left_out, one_family, taken_apart
from bdaudit.models.adapter_products import dora, measured_axis, product
from bdaudit.models.adapter_settings import Settings, read_settings
from bdaudit.models.suspect import Suspect
from bdaudit.tensor_file import open_tensors
from bdaudit.untrusted.formats.addition import SETTINGS
from bdaudit.untrusted.inspect import File
from bdaudit.untrusted.safetensors_header import MAX_ITEMS
from bdaudit.untrusted.tree import parse_json, shown

LARGEST = 4 << 30
"""Bytes of an adapter; those in use have up to 0.3 GB."""
HEADER_KEY = "lora_adapter_metadata"
"""Where diffusers keeps peft's settings in a file's header."""
_BIAS, _DORA = "diff_b", "dora_scale"
_PARTS = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3")
_HEEDING = {"q_proj", "k_proj", "v_proj"}


@dataclass(frozen=True)
class Adapter:
    """One adapter and what it adds: (component, parameter) → difference, on the CPU in float32, ``scale`` and α in it."""

    files: tuple[File, ...]
    """The weights, and peft's settings where they count."""
    scale: float
    deltas: Mapping[tuple[str, str], Tensor]
    decomposed: frozenset[tuple[str, str]] = frozenset()
    """Those of ``deltas`` that are a DoRA's: what it adds depends on the weight that it is added to."""
    read_otherwise: str = ""
    """How diffusers reads the same file to another effect; empty where it does not."""

    @property
    def digest(self) -> str:
        """The weights' SHA-256; with settings beside them, one over both."""
        digests = [file.sha256 for file in self.files]
        return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode("ascii")).hexdigest()

    @property
    def key(self) -> str:
        """What names it in the key of a run's state."""
        return f"{self.digest}:{self.scale}"


@dataclass(frozen=True)
class _Source:
    """What an adapter says of itself: its spelling, and where its α stands."""

    where: str
    family: Family
    settings: Mapping[str, Settings]
    """By component, "" for any; empty where there are none."""
    with_alpha: bool
    """Whether any module has an α of its own in the file."""

    @property
    def of(self) -> str:
        """The class of model that it was made on, where its settings say."""
        return self.settings[""].of if "" in self.settings else ""


def read_adapter(path: Path, scale: float, suspect: Suspect) -> Adapter:
    """Inspect and read one adapter, a file or the directory that it lies in, for ``suspect``.

    Raises:
        UsageError: no such regular file, or not a ``.safetensors``.
        RefusedError: a pickle under that name, or settings that are a link.
        BdauditError: damaged, not finite, or it does not fit the model.
        InconclusiveError: of a kind, or with settings, that are not supported; or loaders disagree about it.
    """
    found, source, modules = _inspected(path, scale, {name: type(module).__name__ for name, module in suspect.heeding.items()})
    where = source.where
    layers = Layers(suspect.heeding)
    deltas: dict[tuple[str, str], Tensor] = {}
    decomposed: set[tuple[str, str]] = set()
    for (key, spelt), held in modules.items():
        layer = layers.find(key, where, source.of)
        settings = source.settings.get(layer.component, source.settings.get(""))
        changes = _changes(key, held, layer.module, settings, source, scale)
        for name, delta in (each for parameter, change in changes.items() for each in layer.apart(parameter, change).items()):
            if (layer.component, name) in deltas:
                raise BdauditError(f"{where}: {shown(spelt)} is there twice, under two spellings; the adapter is damaged")
            if not bool(torch.isfinite(delta).all()):
                raise BdauditError(f"{where}: the change of {shown(spelt)} is not finite; the adapter is damaged")
            deltas[layer.component, name] = delta
        decomposed |= {(layer.component, f"{name}.weight") for name in layer.names} if held.keys() & {_DORA, "magnitude"} else set()
    return replace(found, deltas=deltas, decomposed=frozenset(decomposed))


def inspect_adapter(path: Path, scale: float, components: Mapping[str, tuple[str, str]] | None = None) -> Adapter:
    """The same without a model to fit it to: what its file says of itself, and no differences; raises as ``read_adapter``.

    ``components`` of the model that it is for are library and class of each, by which diffusers reads it to one effect or another.
    """
    return _inspected(path, scale, {name: kind for name, (_, kind) in (components or {}).items()})[0]


_Modules = dict[tuple[Key, str], dict[str, Tensor]]


def _inspected(path: Path, scale: float, classes: Mapping[str, str]) -> tuple[Adapter, _Source, _Modules]:
    path = adapter_file(path)
    where = shown(path)
    tensors, header, file = _tensors(path)
    keys = {name: taken_apart(name, where) for name in tensors}
    if not keys:
        raise BdauditError(f"{where} holds no adapter")
    source, beside = _source(list(keys.values()), header, path)
    otherwise = _read_otherwise(source.family, keys, tensors, where, classes)
    found = Adapter((file, *([beside] if beside else [])), scale, {}, read_otherwise=otherwise)
    return found, source, _modules(keys, tensors, where)


def read_adapters(named: Sequence[tuple[Path, float]], suspect: Suspect) -> tuple[Adapter, ...]:
    """Adapters that are applied together, by file and scale.

    Raises:
        UsageError, RefusedError, BdauditError: as ``read_adapter``.
        InconclusiveError: as there; or one that is more than a sum changes what another changes too, so that their order counts.
    """
    found = tuple(read_adapter(path, scale, suspect) for path, scale in named)
    counts = Counter(key for adapter in found for key in adapter.deltas)
    for adapter in found:
        both = next((name for name in sorted(adapter.decomposed) if counts[name] > 1), None)
        if both:
            said = (
                f"{shown(adapter.files[0].path)} is a DoRA, and another adapter changes {both[0]}.{both[1]} too: tools differ in the order"
            )
            raise InconclusiveError(f"{said}; apply one at a time, or merge them with the tool that you use and audit the result")
    return found


@contextmanager
def applied(suspect: Suspect, adapters: Sequence[Adapter]) -> Iterator[None]:
    """The adapters' changes are in the weights for the block's length; after it every weight is the one from before."""
    weights = {key: suspect.modules[key[0]].get_parameter(key[1]) for key in sorted(merged(adapters))}
    before = {key: weight.detach().clone() for key, weight in weights.items()}
    try:
        merge(suspect, adapters)
        yield
    finally:
        with torch.no_grad():
            for key, weight in weights.items():
                weight.copy_(before[key])


@torch.no_grad()
def merge(suspect: Suspect, adapters: Sequence[Adapter]) -> None:
    """Put the adapters' changes into the weights, for good."""
    for (component, name), delta in merged(adapters).items():
        weight = suspect.modules[component].get_parameter(name)
        weight.copy_((weight.float() + delta.to(weight.device)).to(weight.dtype))


def merged(adapters: Sequence[Adapter]) -> dict[tuple[str, str], Tensor]:
    """(component, parameter) → what all of them together add."""
    found: dict[tuple[str, str], Tensor] = {}
    for adapter in adapters:
        for key, delta in adapter.deltas.items():
            found[key] = found[key] + delta if key in found else delta
    return found


def _tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None, File]:
    """Tensors, and peft's settings where the header tells them. The checked bytes are the loaded bytes: the file is read once."""
    if path.suffix != ".safetensors" or not path.is_file():
        raise UsageError(f"--lora {shown(path)}: expected a .safetensors file, or a directory with one; a pickle is never opened")
    with open_tensors(path, shown(path), error=BdauditError) as file:
        if file.size > LARGEST:
            raise BdauditError(f"{shown(path)} has {file.size:,} bytes; at most {LARGEST:,} are read of an adapter")
        told = _told(file.header.metadata.get(HEADER_KEY), path)
        tensors, digest = file.load()
    return tensors, told, File(path=str(path), bytes=file.size, sha256=digest)


def _told(text: str | None, path: Path) -> dict[str, Any] | None:
    told = None if text is None else parse_json(text.encode("utf-8", "surrogatepass"), f"{path}: {HEADER_KEY} in its header", MAX_ITEMS)
    if told is not None and not isinstance(told, dict):
        raise BdauditError(f"{shown(path)}: {HEADER_KEY} in its header is no map of settings")
    return told


def _modules(keys: Mapping[str, Key], tensors: Mapping[str, Tensor], where: str) -> _Modules:
    """A module's first key and its name → factor → tensor, float32."""
    first: dict[tuple[str, str], tuple[Key, str]] = {}
    found: _Modules = {}
    for name, key in keys.items():
        tensor = tensors[name]
        if not tensor.is_floating_point() and key.role != "alpha":
            said = f"{where}: {shown(name)} holds {str(tensor.dtype).removeprefix('torch.')}; a quantised adapter is not supported"
            raise InconclusiveError(f"{said}, so name the one in floating point")
        if not bool(torch.isfinite(tensor.float()).all()):
            raise BdauditError(f"{where}: {shown(name)} holds NaN or infinity; the adapter is damaged")
        held = found.setdefault(first.setdefault((key.component, key.module), (key, key.module)), {})
        if key.role in held:
            raise BdauditError(f"{where}: {shown(name)} is there twice, under two spellings; the adapter is damaged")
        held[key.role] = tensor.float()
    return found


def _source(keys: Sequence[Key], header: dict[str, Any] | None, path: Path) -> tuple[_Source, File | None]:
    """Where α stands for a file of these keys; and the file beside it, where it stands there."""
    where = shown(path)
    family = one_family(keys, where)
    with_alpha = any(key.role == "alpha" for key in keys)
    settings: dict[str, Settings] = {}
    beside: File | None = None
    if family == "peft" or (family == "bare" and header is None and any(key.alpha_elsewhere for key in keys)):
        found = settings_beside(path)
        if found is None and not with_alpha:
            said = f"{where}: its tensors are named as peft names them, and alpha stands in {SETTINGS}, which is not beside it"
            raise InconclusiveError(f"{said}; put both into one folder and name that, or convert it to diffusers' or kohya's format")
        if found:
            told, beside = found
            settings = {"": read_settings(told, shown(beside.path))}
    elif header is not None:
        if family == "kohya":
            raise InconclusiveError(f"{where}: kohya's names with diffusers' settings in the header; loaders disagree about alpha")
        parts = _PARTS if family == "diffusers" else ("",)
        settings = {part: read_settings(_of(header, part), f"{where}: the header's {HEADER_KEY}") for part in parts}
    if settings and with_alpha:
        raise InconclusiveError(f"{where}: alpha stands in its tensors and in its settings; loaders disagree about which counts")
    _check_magnitudes(keys, settings, where)
    return _Source(where, family, settings, with_alpha), beside


def _of(header: Mapping[str, Any], part: str) -> dict[str, Any]:
    """A component's settings: diffusers puts its name before each."""
    return {name.removeprefix(f"{part}."): value for name, value in header.items() if name.startswith(f"{part}.")} if part else dict(header)


def _check_magnitudes(keys: Sequence[Key], settings: Mapping[str, Settings], where: str) -> None:
    """Raises ``InconclusiveError`` where some modules have a DoRA magnitude and others none, or the settings say otherwise."""
    modules = {(key.component, key.module) for key in keys}
    with_it = {(key.component, key.module) for key in keys if key.role == "magnitude"}
    for component in {component for component, _ in modules}:
        own, dressed = ({m for m in found if m[0] == component} for found in (modules, with_it))
        told = settings.get(component, settings.get(""))
        if dressed not in (set(), own) or (told is not None and told.dora != bool(dressed)):
            said = f"{where}: DoRA magnitudes for {len(dressed)} of {len(own)} layers"
            raise InconclusiveError(f"{said}; all of them or none are supported, as use_dora says")


def _read_otherwise(family: Family, keys: Mapping[str, Key], tensors: Mapping[str, Tensor], where: str, classes: Mapping[str, str]) -> str:
    """ComfyUI (0.3.77) divides by the norms of outputs from before the change; diffusers (0.42.1) leaves dora_scale out, and has one alpha
    for a kohya file's attention layers and text encoder: the commonest, whatever theirs is. By a text encoder's out_proj it knows kohya's
    spelling of its attention: where a file has none, but other layers, the attention is left out."""
    magnitudes = [tensors[name] for name, key in keys.items() if key.role == _DORA]
    dora_too = "its dora_scale" if magnitudes and family != "ComfyUI" else ""
    if unread := " and ".join(filter(None, (left_out(family, keys.values(), classes), dora_too))):
        several = any(each.shape[:1] > (1,) for each in magnitudes)
        comfy = ", and as ComfyUI does, which divides by the norms of the weights without it" if several else ""
        return f"{where} as diffusers reads it, which leaves out {unread}{comfy}"
    if family != "kohya" or not {key.role for key in keys.values()} <= {"down", "up", "alpha"}:
        return ""  # not kohya's names, or factors that diffusers does not open at all
    for component in _PARTS:
        ends = {re.sub(r".*self_attn_", "", key.module) for key in keys.values() if key.component == component and component != "unet"}
        if ends & _HEEDING and ends - _HEEDING and "out_proj" not in ends:
            return f"{where} as diffusers reads it, which leaves out the attention of {component} where none of its layers is an out_proj"
        if "transformer" in classes:
            continue  # its converter takes each alpha by itself
        own = {name: key for name, key in keys.items() if key.role == "alpha" and key.component == component}
        alphas = {key.module: float(tensors[name].flatten()[0]) for name, key in own.items()}
        counts = Counter(alphas.values())
        usual = {alpha for alpha, n in counts.items() if n == max(counts.values())}
        whole = component != "unet"
        held = {alpha for module, alpha in alphas.items() if whole or "_attn1_" in module or "_attn2_" in module}
        if len(held | usual) > 1 and held:
            return f"{where} as diffusers reads it, which takes the commonest alpha for attention and text encoder; others differ here"
    return ""


def _changes(
    key: Key, held: Mapping[str, Tensor], layer: nn.Module, settings: Settings | None, source: _Source, scale: float
) -> dict[str, Tensor]:
    """Parameter of the layer → what is added to it."""
    where = f"{source.where}: {shown(key.module)}"
    weight, bias = layer.get_parameter("weight").detach().float().cpu(), getattr(layer, "bias", None)
    factors = {role: tensor for role, tensor in held.items() if role not in ("alpha", "magnitude", _DORA, _BIAS)}
    changes: dict[str, Tensor] = {}
    if factors or _BIAS not in held:
        if "diff" not in factors and not isinstance(layer, nn.Linear | nn.Conv2d):
            raise InconclusiveError(f"{where} is a {type(layer).__name__}; factors for linear and convolution layers are supported")
        delta, rank = product(factors, weight.shape, where)
        delta = delta * (scale * _alpha_over_rank(key, held.get("alpha"), rank, settings, source))
        changes["weight"] = _decomposed(weight, delta, held, scale, where)
    if _BIAS in held:
        if bias is None or bias.shape != held[_BIAS].shape:
            raise BdauditError(f"{where}: a difference of shape {tuple(held[_BIAS].shape)} for a bias that this layer does not have")
        changes["bias"] = scale * held[_BIAS]
    return changes


def _decomposed(weight: Tensor, delta: Tensor, held: Mapping[str, Tensor], scale: float, where: str) -> Tensor:
    """``delta`` itself, or what DoRA makes of it: peft's magnitudes are of outputs, LyCORIS' of what their shape says.

    Raises:
        InconclusiveError: a scale, which LyCORIS applies to each magnitude's factor, ComfyUI to the difference, diffusers to the product.
    """
    if _DORA in held:
        if scale != 1:
            said = f"{where} has a dora_scale, and tools disagree about what a scale of {scale:g} makes of it"
            raise InconclusiveError(f"{said}; name it without a scale, or merge it with the tool that you use and audit the result")
        return dora(weight, delta, held[_DORA], where, measured_axis(held[_DORA], weight.shape, where))
    return dora(weight, delta, held["magnitude"], where) if "magnitude" in held else delta


def _alpha_over_rank(key: Key, alpha: Tensor | None, rank: int | None, settings: Settings | None, source: _Source) -> float:
    """What the product is multiplied by, as the library that wrote the file has it."""
    where = f"{source.where}: {shown(key.module)}"
    if settings:
        return settings.scale(key.module, rank)
    if rank is None:
        return 1.0
    if alpha is None and source.with_alpha:
        said = f"{where} has no alpha and other layers have one: kohya's tools take its rank, diffusers the others' alpha"
        raise InconclusiveError(f"{said}; there is no one model to audit, so write alpha for each layer")
    if alpha is None:
        return 1.0
    if alpha.numel() != 1:
        raise BdauditError(f"{where}: alpha has the shape {tuple(alpha.shape)}; expected one number")
    if not float(alpha):
        raise InconclusiveError(f"{where}: alpha is 0, by which diffusers changes nothing and kohya's tools take the rank; write it out")
    return float(alpha) / rank
