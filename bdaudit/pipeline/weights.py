"""Which weights files a loader opens for each model, and whether they are what the configs describe."""

from __future__ import annotations

import math
import os
import re
from typing import Any

from bdaudit.errors import BdauditError, InconclusiveError, RefusedError
from bdaudit.pipeline.reading import Reader, shown
from bdaudit.pipeline.rules import PICKLE_SUFFIXES
from bdaudit.pipeline.safetensors_header import TensorInfo, read_header

STEMS = {"text_encoder": "model", "unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}
VARIANTS = ("", "fp16")
_UNREMARKABLE = 4096
"""A number in a model's config up to this allocates little by itself; a larger one must be the size of a tensor in its weights."""

Tensors = dict[str, TensorInfo]


def _names(component: str, variant: str) -> tuple[str, str]:
    middle = f".{variant}" if variant else ""
    stem = f"{component}/{STEMS[component]}"
    return f"{stem}{middle}.safetensors", f"{stem}.safetensors.index{middle}.json"


def choose_variant(files: dict[str, int]) -> str:
    """The full weights where all three models have them, else the ``fp16`` variant where all three have that.

    Raises:
        RefusedError: a model has weights as pickles alone.
        BdauditError: a model has none, or no one variant is complete.
    """
    has = {c: [v for v in VARIANTS if any(name in files for name in _names(c, v))] for c in STEMS}
    for variant in VARIANTS:
        if all(variant in found for found in has.values()):
            return variant
    lacking = [c for c, found in has.items() if not found]
    pickled = {c: [p for p in files if p.startswith(f"{c}/") and os.path.splitext(p)[1].lower() in PICKLE_SUFFIXES] for c in lacking}
    if any(pickled.values()):
        raise RefusedError([f"{c}: no safetensors, and {shown(p[0])} could only be loaded by unpickling" for c, p in pickled.items() if p])
    if lacking:
        raise BdauditError("; ".join(f"{c}: no weights, expected {_names(c, '')[0]}" for c in lacking))
    kinds = ", ".join(f"{c} has {' and '.join(v or 'full weights' for v in found)}" for c, found in has.items())
    raise BdauditError(f"no one kind of weights is there for all three models: {kinds}; download the missing ones")


def weights_of(component: str, variant: str, reader: Reader) -> tuple[tuple[str, ...], Tensors]:
    """The safetensors files a loader opens, and their tensors.

    diffusers prefers an index to a single file, transformers the other way round.

    Raises:
        RefusedError: pickles under another name, index entries that leave the folder.
        BdauditError: damaged or missing files, an index that does not match them.
    """
    single, index = _names(component, variant)
    endings = (f".{variant}.safetensors.index.json", f".safetensors.{variant}.index.json")
    if variant and any(f"{component}/{STEMS[component]}{ending}" in reader.files for ending in endings):
        raise BdauditError(f"{component}: an index of a deprecated name; save the model again with a current diffusers")
    use_index = index in reader.files and (component != "text_encoder" or single not in reader.files)
    if not use_index:
        return (single,), read_header(reader, single)
    shards = _shards(index, reader)
    tensors: Tensors = {}
    for path, expected in shards.items():
        held = read_header(reader, path)
        if set(held) != expected:
            raise BdauditError(f"{path} does not hold the tensors that {index} lists for it")
        tensors |= held
    return tuple(sorted(shards)), tensors


def _shards(index: str, reader: Reader) -> dict[str, set[str]]:
    content = reader.json(index)
    weight_map = content.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not isinstance(content.get("metadata"), dict):
        raise BdauditError(f"{index}: expected metadata and a weight_map")
    shards: dict[str, set[str]] = {}
    for tensor, name in weight_map.items():
        if not isinstance(name, str):
            raise BdauditError(f"{index}: {shown(tensor)} is in {shown(name)}; expected a file name")
        if re.fullmatch(r"[\w-][\w.-]*", name, re.ASCII) is None:
            raise RefusedError([f"{index}: the entry {shown(name)} leads out of the folder"])
        if not name.endswith(".safetensors"):
            raise RefusedError([f"{index}: the entry {shown(name)} could only be loaded by unpickling"])
        shards.setdefault(f"{index.split('/')[0]}/{name}", set()).add(tensor)
    missing = sorted(set(shards) - set(reader.files))
    if missing:
        raise BdauditError(f"{shown(missing[0])} is missing; {index} lists it")
    return shards


def check_memory(total: int) -> None:
    """Compare the weights' bytes with the machine's memory.

    Raises:
        BdauditError: they cannot fit.
    """
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if total > memory:
        raise BdauditError(f"the weights take {total / 1e9:.1f} GB, this machine has {memory / 1e9:.1f} GB of memory")


def check_shapes(component: str, config: dict[str, Any], tensors: Tensors) -> None:
    """Compare the sizes a config asks for with the tensors there are, so that no config can ask for more than its weights hold.

    Raises:
        BdauditError: they disagree, or a number that is the size of no tensor is larger than 4,096.
    """
    sizes = {size for info in tensors.values() for size in info.shape}
    for key, value in config.items():
        for number in _numbers(value):
            if _allocates(number) and number not in sizes and not key.endswith("_token_id"):
                raise BdauditError(f"{component}/config.json: {shown(key)} is {shown(number)}, which no tensor of its weights fits")
    try:
        described = _expected(component, tensors)
    except BdauditError as error:
        raise BdauditError(f"{component}: {error}") from error
    for key, expected in described.items():
        got = _plain(config.get(key, expected), expected)
        if got != expected:
            raise BdauditError(f"{component}/config.json: {key} is {shown(got)}, its weights have {shown(expected)}")


def embeddings(tensors: Tensors) -> int:
    """How many token ids a text encoder has embeddings for; 0 for another model."""
    return next((t.shape[0] for name, t in tensors.items() if name.endswith("token_embedding.weight") and t.shape), 0)


def check_channels(unet: dict[str, Any], vae: dict[str, Any]) -> None:
    """Whether the UNet denoises plain latents: inpainting and the like take further channels.

    Raises:
        InconclusiveError: it does not.
    """
    channels, latent = unet.get("in_channels", 4), vae.get("latent_channels", 4)
    if channels != latent:
        what = f"the UNet takes {shown(channels)} channels where latents have {shown(latent)}"
        raise InconclusiveError(f"{what}; only text-to-image is supported")


def _allocates(number: float) -> bool:
    return (isinstance(number, float) and not math.isfinite(number)) or abs(number) > _UNREMARKABLE


def _numbers(value: Any) -> list[float]:
    todo, found = [value], []
    while todo:
        item = todo.pop()
        if isinstance(item, dict | list):
            todo += item.values() if isinstance(item, dict) else item
        elif isinstance(item, int | float) and not isinstance(item, bool):
            found.append(item)
    return found


def _plain(value: Any, expected: Any) -> Any:
    """One number where ``expected`` is a list stands for all of it, and a list of equal numbers for one."""
    if isinstance(expected, list) and type(value) is int:
        return [value] * len(expected)
    if isinstance(expected, int) and isinstance(value, list) and value and all(v == value[0] for v in value):
        return value[0]
    return value


def _expected(component: str, tensors: Tensors) -> dict[str, Any]:
    if component == "text_encoder":
        return _expected_text(tensors)
    prefix = "" if component == "unet" else "encoder."
    layers = _counts(tensors, rf"({prefix}down_blocks\.\d+)\.resnets\.(\d+)\.")
    blocks = [f"{prefix}down_blocks.{i}" for i in range(len(layers))]
    expected: dict[str, Any] = {
        "in_channels": _size(tensors, f"{prefix}conv_in.weight", 1),
        "out_channels": _size(tensors, "conv_out.weight" if component == "unet" else "decoder.conv_out.weight", 0),
        "block_out_channels": [_size(tensors, f"{block}.resnets.0.conv1.weight", 0) for block in blocks],
        "layers_per_block": [layers.get(block, 0) for block in blocks],
    }
    if component == "vae":
        return expected | {"latent_channels": _size(tensors, "decoder.conv_in.weight", 1)}
    return expected | _expected_unet(tensors)


def _expected_unet(tensors: Tensors) -> dict[str, Any]:
    expected = {key: _size(tensors, f"{key.removesuffix('_kernel')}.weight", 2) for key in ("conv_in_kernel", "conv_out_kernel")}
    contexts = {info.shape[-1:] for name, info in tensors.items() if name.endswith("attn2.to_k.weight")}
    depths = set(_counts(tensors, r"(.+)\.transformer_blocks\.(\d+)\.").values())
    if len(contexts) == 1 and () not in contexts:
        expected["cross_attention_dim"] = contexts.pop()[0]
    if len(depths) == 1:
        expected["transformer_layers_per_block"] = depths.pop()
    return expected


def _expected_text(tensors: Tensors) -> dict[str, Any]:
    plain = {name.removeprefix("text_model."): info for name, info in tensors.items()}
    return {
        "vocab_size": _size(plain, "embeddings.token_embedding.weight", 0),
        "hidden_size": _size(plain, "embeddings.token_embedding.weight", 1),
        "max_position_embeddings": _size(plain, "embeddings.position_embedding.weight", 0),
        "intermediate_size": _size(plain, "encoder.layers.0.mlp.fc1.weight", 0),
        "num_hidden_layers": _counts(plain, r"(encoder\.layers)\.(\d+)\.").get("encoder.layers", 0),
    }


def _size(tensors: Tensors, name: str, axis: int) -> int:
    shape = tensors[name].shape if name in tensors else ()
    if len(shape) <= axis:
        raise BdauditError(f"the weights lack {name}, or its shape is {list(shape)}; this is not the model that its config names")
    return shape[axis]


def _counts(tensors: Tensors, pattern: str) -> dict[str, int]:
    """How many different second groups of ``pattern`` each first one has."""
    found: dict[str, set[str]] = {}
    for name in tensors:
        if match := re.match(pattern, name, re.ASCII):
            found.setdefault(match[1], set()).add(match[2])
    return {first: len(second) for first, second in found.items()}
