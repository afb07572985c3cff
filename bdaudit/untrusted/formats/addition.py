"""What is no model by itself, told by names and shapes: an adapter, or a learned embedding, given where a model was expected.

What its header says of its base is its maker's claim; it is passed on as such.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bdaudit.untrusted.leftovers import ADAPTER
from bdaudit.untrusted.safetensors_header import Header, whole_header
from bdaudit.untrusted.shapes import Tensors
from bdaudit.untrusted.tree import Reader, shown

ADAPTERS = ("adapter_model.safetensors", "pytorch_lora_weights.safetensors")
"""What peft and diffusers call the file in a directory of their own."""
EMBEDDINGS = ("learned_embeds.safetensors",)
"""What diffusers' trainer of textual inversion calls it."""
SETTINGS = "adapter_config.json"
_SAYING = ("modelspec.architecture", "ss_base_model_version", "ss_sd_model_name")
"""Keys of a header under which trainers say what they started from."""
_FAMILIES = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 2048: "SDXL"}
"""Width of the states that the cross-attention's keys are made from → family."""
_OF_EMBEDDINGS = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x"}
_TOWERS = {"clip_l", "clip_g"}
_KEYS = re.compile(r"attn2[._](processor[._])?to_k([._]lora)?[._](lora_)?(down|A)\.weight")
_WIDEST = 16_384
"""Numbers in a vector of an embedding."""


def described(header: Header, key: str, settings: Mapping[str, Any] | None = None) -> str:
    """What a file is, what base it wants, and the command to run; empty where it is neither adapter nor embedding."""
    tensors = header.tensors
    if tensors and all(map(ADAPTER.search, tensors)):
        layers = {re.split(r"[._](lora|hada|lokr|oft|alpha|dora|diff)", name, maxsplit=1)[0] for name in tensors}
        what, flag, base = f"an adapter of {len(layers)} layers", "--lora", _family_of_keys(tensors)
    elif is_embedding(tensors):
        rows = next(iter(tensors.values())).shape
        what, flag = f"a learned embedding of {rows[0] if len(rows) > 1 else 1} vectors", "--embedding"
        base = "SDXL" if tensors.keys() <= _TOWERS else _OF_EMBEDDINGS.get(rows[-1], "")
    else:
        return ""
    said = [f"its header calls its base {shown(claim, 80)}"] if (claim := _claim(header, settings or {})) else []
    said = [*([f"its sizes are those of {base}"] if base else []), *said]
    about = f" ({', and '.join(said)})" if said else ""
    return f"{shown(key)} is {what}, and no model{about}; audit it with its base: `bdaudit scan BASE {flag} {shown(key)}`"


def described_in(reader: Reader) -> str:
    """The same of the directory that peft or diffusers writes; empty where it holds none.

    Raises:
        BdauditError: as ``whole_header``; settings that are no JSON object.
    """
    name = next((name for name in (*ADAPTERS, *EMBEDDINGS) if name in reader.files), "")
    settings = reader.json(SETTINGS) if SETTINGS in reader.files and name in ADAPTERS else None
    return described(whole_header(reader, name, name), name, settings) if name else ""


def is_embedding(tensors: Tensors) -> bool:
    """Whether these are an embedding's: one tensor of vectors that is called like no layer, or one for each of SDXL's text encoders."""
    few = (len(tensors) == 1 and "." not in next(iter(tensors))) or (bool(tensors) and tensors.keys() <= _TOWERS)
    return few and all(len(info.shape) in (1, 2) and info.shape[-1] <= _WIDEST for info in tensors.values())


def _family_of_keys(tensors: Tensors) -> str:
    return next((_FAMILIES.get(info.shape[1], "") for name, info in tensors.items() if _KEYS.search(name) and len(info.shape) > 1), "")


def _claim(header: Header, settings: Mapping[str, Any]) -> str:
    told = [settings.get("base_model_name_or_path"), *(header.metadata.get(name) for name in _SAYING)]
    return next((text for text in told if isinstance(text, str) and text), "")
