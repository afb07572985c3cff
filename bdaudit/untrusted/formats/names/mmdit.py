"""Stability's MMDiT (``joint_blocks``) of Stable Diffusion 3 and 3.5, and diffusers' ``SD3Transformer2DModel``.

Queries, keys and values lie in one tensor there. Two modulations say shift before scale, where diffusers says scale before shift: the last
one, and that of the text in the last block, which has no use for the text behind its attention.
"""

from __future__ import annotations

from bdaudit.untrusted.formats.names.flux import count
from bdaudit.untrusted.formats.names.renaming import Fused, Renaming, Rows, Source

_PLAIN = {
    "pos_embed": "pos_embed.pos_embed",
    "x_embedder.proj": "pos_embed.proj",
    "context_embedder": "context_embedder",
    "final_layer.linear": "proj_out",
    **{
        f"{stored}_embedder.mlp.{2 * i}": f"time_text_embed.{own}_embedder.linear_{i + 1}"
        for stored, own in (("t", "timestep"), ("y", "text"))
        for i in (0, 1)
    },
}
_BLOCK = {
    "x_block.adaLN_modulation.1": "norm1.linear",
    "context_block.adaLN_modulation.1": "norm1_context.linear",
    "x_block.attn.ln_q": "attn.norm_q",
    "x_block.attn.ln_k": "attn.norm_k",
    "context_block.attn.ln_q": "attn.norm_added_q",
    "context_block.attn.ln_k": "attn.norm_added_k",
    "x_block.attn2.ln_q": "attn2.norm_q",
    "x_block.attn2.ln_k": "attn2.norm_k",
    "x_block.attn.proj": "attn.to_out.0",
    "context_block.attn.proj": "attn.to_add_out",
    "x_block.attn2.proj": "attn2.to_out.0",
    "x_block.mlp.fc1": "ff.net.0.proj",
    "x_block.mlp.fc2": "ff.net.2",
    "context_block.mlp.fc1": "ff_context.net.0.proj",
    "context_block.mlp.fc2": "ff_context.net.2",
}
_TOGETHER = {
    "x_block.attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "context_block.attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "x_block.attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
}
_LAST = "context_block.adaLN_modulation.1"


def sources_in_file(stored: Rows) -> dict[str, Source]:
    """diffusers' name → source, of a file's names without the beginning.

    Raises:
        BdauditError: more blocks than any model has; fused tensors of other sizes than their parts'.
    """
    return _table(count(stored, "joint_blocks"), stored.get("x_embedder.proj.weight", 0)).in_file(stored)


def sources_in_part(own: Rows) -> dict[str, Source]:
    """The same, told by diffusers' names."""
    return _table(count(own, "transformer_blocks"), own.get("pos_embed.proj.weight", 0)).in_part(own)


def _table(blocks: int, width: int) -> Fused:
    plain, together = dict(_PLAIN), dict[str, tuple[str, ...]]()
    swapped = {"final_layer.adaLN_modulation.1": "norm_out.linear"}
    for i in range(blocks):
        stored, own = f"joint_blocks.{i}", f"transformer_blocks.{i}"
        plain |= {f"{stored}.{mine}": f"{own}.{theirs}" for mine, theirs in _BLOCK.items()}
        together |= {f"{stored}.{mine}": tuple(f"{own}.{each}" for each in parts) for mine, parts in _TOGETHER.items()}
    if blocks:
        last = f"joint_blocks.{blocks - 1}.{_LAST}"
        swapped[last] = plain.pop(last)
    return Fused(Renaming(plain), together, swapped, width)
