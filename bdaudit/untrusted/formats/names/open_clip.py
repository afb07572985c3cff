"""open_clip's text tower and transformers' ``CLIPTextModel``: queries, keys and values in one tensor there, the projection transposed."""

from __future__ import annotations

import re
from collections.abc import Iterable

from bdaudit.untrusted.formats.names.renaming import Renaming, Source

_PLAIN = {
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding": "text_model.embeddings.token_embedding",
    "ln_final": "text_model.final_layer_norm",
    "logit_scale": "logit_scale",
}
_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_PROJECTIONS = {"text_projection": False, "text_projection.weight": True}
"""What the projection is called in files → whether it lies as transformers has it."""
_OWN_PROJECTION = "text_projection.weight"
_TOGETHER = re.compile(r"transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)", re.ASCII)
_APART = re.compile(r"text_model\.encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(weight|bias)", re.ASCII)
MOST = 128
"""Layers; CLIP-G has 32."""


def layers_of_file(names: Iterable[str]) -> int:
    """How many the names go up to."""
    found = [int(match[1][:9]) for name in names if (match := re.match(r"transformer\.resblocks\.(\d+)\.", name, re.ASCII))]
    return 1 + max(found, default=-1)


def _renaming(layers: int) -> Renaming:
    pairs = dict(_PLAIN)
    for i in range(layers):
        stored, own = f"transformer.resblocks.{i}", f"text_model.encoder.layers.{i}"
        pairs |= {f"{stored}.{mine}": f"{own}.{theirs}" for mine, theirs in _LAYER.items()}
    return Renaming(pairs)


def sources_in_file(names: Iterable[str], layers: int) -> dict[str, Source]:
    """Tower's name → source, of the first ``layers`` layers and all else that the tower has."""
    names = list(names)
    found = _renaming(min(layers, MOST)).sources(names)
    for name in names:
        if name in _PROJECTIONS:
            found[_OWN_PROJECTION] = Source(name, transposed=not _PROJECTIONS[name])
        if (match := _TOGETHER.fullmatch(name)) and int(match[1][:9]) < layers:
            own = f"text_model.encoder.layers.{match[1]}.self_attn"
            found |= {f"{own}.{letter}_proj.{match[2]}": Source(name, third=k) for k, letter in enumerate("qkv")}
    return found


def sources_in_part(names: Iterable[str]) -> dict[str, Source]:
    """The same, told by the tower's names."""
    table, found = _renaming(MOST), {}
    for name in names:
        if name == _OWN_PROJECTION:
            found[name] = Source("text_projection", transposed=True)
        elif match := _APART.fullmatch(name):
            found[name] = Source(f"transformer.resblocks.{match[1]}.attn.in_proj_{match[3]}", third="qkv".index(match[2]))
        elif stored := table.stored(name):
            found[name] = Source(stored)
    return found
