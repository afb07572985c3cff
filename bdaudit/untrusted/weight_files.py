"""Which weights files a loader opens for each model, and what is in them."""

from __future__ import annotations

import os
import re

from bdaudit.errors import BdauditError, RefusedError
from bdaudit.untrusted.rules import PICKLE_SUFFIXES
from bdaudit.untrusted.safetensors_header import read_header
from bdaudit.untrusted.shapes import Tensors
from bdaudit.untrusted.torch_file import read_torch
from bdaudit.untrusted.tree import Reader, shown

STEMS = {"text_encoder": "model", "unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}
PICKLED = {"text_encoder": "pytorch_model", "unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}
VARIANTS = ("", "fp16")


def _names(component: str, variant: str) -> tuple[str, str]:
    middle = f".{variant}" if variant else ""
    stem = f"{component}/{STEMS[component]}"
    return f"{stem}{middle}.safetensors", f"{stem}.safetensors.index{middle}.json"


def _pickle(component: str, variant: str) -> str:
    return f"{component}/{PICKLED[component]}{'.' if variant else ''}{variant}.bin"


def choose_variant(files: dict[str, int], *, allow_pickle: bool = False) -> str:
    """The full weights where all three models have them, else the ``fp16`` variant where all three have that.

    With ``allow_pickle``, a model that lacks either may have it as one ``.bin`` instead; safetensors alone are taken where they can be.

    Raises:
        RefusedError: a model has weights as pickles alone, and they are not allowed or are no single ``.bin``.
        BdauditError: a model has none, or no one variant is complete.
    """
    has = {c: [v for v in VARIANTS if any(name in files for name in _names(c, v))] for c in STEMS}
    allowed = {c: [v for v in VARIANTS if v in found or _pickle(c, v) in files] for c, found in has.items()} if allow_pickle else has
    for there in (has, allowed):
        for variant in VARIANTS:
            if all(variant in found for found in there.values()):
                return variant
    _complain(files, allowed, allow_pickle)
    kinds = ", ".join(f"{c} has {' and '.join(v or 'full weights' for v in found)}" for c, found in allowed.items())
    raise BdauditError(f"no one kind of weights is there for all three models: {kinds}; download the missing ones")


def _complain(files: dict[str, int], allowed: dict[str, list[str]], allow_pickle: bool) -> None:
    lacking = [c for c, found in allowed.items() if not found]
    pickled = {c: [p for p in files if p.startswith(f"{c}/") and os.path.splitext(p)[1].lower() in PICKLE_SUFFIXES] for c in lacking}
    if any(pickled.values()):
        why = "is not the one .bin that --allow-pickle reads" if allow_pickle else "could only be loaded by unpickling"
        raise RefusedError([f"{c}: no safetensors, and {shown(p[0])} {why}" for c, p in pickled.items() if p])
    if lacking:
        raise BdauditError("; ".join(f"{c}: no weights, expected {_names(c, '')[0]}" for c in lacking))


def weights_of(component: str, variant: str, reader: Reader) -> tuple[tuple[str, ...], Tensors]:
    """The weights files a loader opens, and their tensors: a pickle only where ``choose_variant`` was allowed to take one.

    diffusers prefers an index to a single file, transformers the other way round.

    Raises:
        RefusedError: pickles under another name, index entries that leave the folder, a pickle of more than tensors.
        BdauditError: damaged or missing files, an index that does not match them.
    """
    single, index = _names(component, variant)
    endings = (f".{variant}.safetensors.index.json", f".safetensors.{variant}.index.json")
    if variant and any(f"{component}/{STEMS[component]}{ending}" in reader.files for ending in endings):
        raise BdauditError(f"{component}: an index of a deprecated name; save the model again with a current diffusers")
    if single not in reader.files and index not in reader.files:
        pickle = _pickle(component, variant)
        return (pickle,), read_torch(reader, pickle)
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
