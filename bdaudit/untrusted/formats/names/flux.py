"""Black Forest Labs' FLUX.1 (``double_blocks``, ``single_blocks``) and diffusers' ``FluxTransformer2DModel``.

Queries, keys and values lie in one tensor there, in single blocks the first layer of the MLP behind them. The last modulation says shift
before scale, where diffusers says scale before shift.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from bdaudit.errors import BdauditError
from bdaudit.untrusted.formats.names.renaming import Fused, Renaming, Rows, Source

_PLAIN = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "final_layer.linear": "proj_out",
    **{
        f"{stored}_in.{layer}_layer": f"time_text_embed.{own}_embedder.linear_{i}"
        for stored, own in (("time", "timestep"), ("vector", "text"), ("guidance", "guidance"))
        for i, layer in enumerate(("in", "out"), 1)
    },
}
_SWAPPED = {"final_layer.adaLN_modulation.1": "norm_out.linear"}
_DOUBLE = {
    "img_mod.lin": "norm1.linear",
    "txt_mod.lin": "norm1_context.linear",
    "img_attn.norm.query_norm.scale": "attn.norm_q.weight",
    "img_attn.norm.key_norm.scale": "attn.norm_k.weight",
    "txt_attn.norm.query_norm.scale": "attn.norm_added_q.weight",
    "txt_attn.norm.key_norm.scale": "attn.norm_added_k.weight",
    "img_attn.proj": "attn.to_out.0",
    "txt_attn.proj": "attn.to_add_out",
    "img_mlp.0": "ff.net.0.proj",
    "img_mlp.2": "ff.net.2",
    "txt_mlp.0": "ff_context.net.0.proj",
    "txt_mlp.2": "ff_context.net.2",
}
_DOUBLE_TOGETHER = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
}
_SINGLE = {
    "modulation.lin": "norm.linear",
    "norm.query_norm.scale": "attn.norm_q.weight",
    "norm.key_norm.scale": "attn.norm_k.weight",
    "linear2": "proj_out",
}
_SINGLE_TOGETHER = {"linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")}
MOST = 256
"""Blocks of a kind; FLUX.1 has 19 and 38."""


def sources_in_file(stored: Rows) -> dict[str, Source]:
    """diffusers' name → source, of a file's names without the beginning.

    Raises:
        BdauditError: more blocks than any model has; fused tensors of other sizes than their parts'.
    """
    counts = count(stored, "double_blocks"), count(stored, "single_blocks")
    return _table(*counts, stored.get("img_in.weight", 0)).in_file(stored)


def sources_in_part(own: Rows) -> dict[str, Source]:
    """The same, told by diffusers' names."""
    counts = count(own, "transformer_blocks"), count(own, "single_transformer_blocks")
    return _table(*counts, own.get("x_embedder.weight", 0)).in_part(own)


def count(names: Iterable[str], of: str) -> int:
    """How many blocks the names go up to; raises ``BdauditError`` for more than any model has."""
    found = [int(match[1]) for name in names if (match := re.match(rf"{of}\.(\d{{1,9}})\.", name, re.ASCII))]
    if max(found, default=0) >= MOST:
        raise BdauditError(f"{of}.{max(found)}: more blocks than any model has ({MOST}); the checkpoint is damaged")
    return 1 + max(found, default=-1)


def _table(double: int, single: int, width: int) -> Fused:
    plain, together = dict(_PLAIN), dict[str, tuple[str, ...]]()
    for n, stored, own, names, fused in (
        (double, "double_blocks", "transformer_blocks", _DOUBLE, _DOUBLE_TOGETHER),
        (single, "single_blocks", "single_transformer_blocks", _SINGLE, _SINGLE_TOGETHER),
    ):
        for i in range(n):
            plain |= {f"{stored}.{i}.{mine}": f"{own}.{i}.{theirs}" for mine, theirs in names.items()}
            together |= {f"{stored}.{i}.{mine}": tuple(f"{own}.{i}.{each}" for each in parts) for mine, parts in fused.items()}
    return Fused(Renaming(plain), together, _SWAPPED, width)
