"""CompVis' and Stability's UNet (``input_blocks``, ``middle_block``, ``output_blocks``) and diffusers' ``UNet2DConditionModel``.

The same layers in the same order; CompVis numbers them through, diffusers block by block. What the numbers mean follows from the names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bdaudit.errors import BdauditError
from bdaudit.untrusted.formats.names.renaming import Renaming, Source

_PLAIN = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "middle_block.1": "mid_block.attentions.0",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
MOST = 64
"""Layers in a row, on the way down or up; SDXL and Stable Diffusion have 12."""


@dataclass(frozen=True)
class Blocks:
    """How the layers are divided into blocks."""

    down: tuple[int, ...]
    """Resnets of each block; all blocks but the last end in a downsampler."""
    up: tuple[int, ...]
    """The same of the way up, upsamplers for downsamplers."""
    attending: frozenset[int]
    """The blocks on the way up whose resnets are followed by attention."""


def sources_in_file(names: Iterable[str]) -> dict[str, Source]:
    """diffusers' name → source, of a file's names without the UNet's prefix; raises as ``blocks_of_file``."""
    names = list(names)
    return renaming(blocks_of_file(names)).sources(names)


def sources_in_part(names: Iterable[str]) -> dict[str, Source]:
    """The same, told by diffusers' names."""
    names = list(names)
    table = renaming(blocks_of_part(names))
    return {name: Source(stored) for name in names if (stored := table.stored(name))}


def blocks_of_file(names: Iterable[str]) -> Blocks:
    """Told by a file's names, without the UNet's prefix.

    Raises:
        BdauditError: more layers than any UNet has.
    """
    kinds: dict[tuple[str, int], set[str]] = {}
    for name in names:
        if match := re.match(r"(input|output)_blocks\.(\d{1,4})\.(\d\.\w+)", name, re.ASCII):
            kinds.setdefault((match[1], int(match[2])), set()).add(match[3])
    down, up, attending = [0], [0], set()
    for way, i in sorted(kinds):
        if i > MOST:
            raise BdauditError(f"{way}_blocks.{i}: more layers than any UNet has ({MOST} one way); the checkpoint is damaged")
        found = kinds[way, i]
        if way == "input" and "0.op" in found:
            down.append(0)
        elif way == "input":
            down[-1] += i > 0
        else:
            up[-1] += 1
            attending |= {len(up) - 1} if {"1.norm", "1.proj_in"} & found else set()
            up += [0] if {"1.conv", "2.conv"} & found else []
    return Blocks(tuple(down), tuple(up), frozenset(attending))


def blocks_of_part(names: Iterable[str]) -> Blocks:
    """Told by diffusers' names."""
    resnets: dict[tuple[str, int], set[str]] = {}
    attending = set()
    for name in names:
        if match := re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.", name, re.ASCII):
            resnets.setdefault((match[1], int(match[2])), set()).add(match[4])
            attending |= {int(match[2])} if match[1] == "up" and match[3] == "attentions" else set()
    down, up = (tuple(len(resnets[key]) for key in sorted(resnets) if key[0] == way) for way in ("down", "up"))
    return Blocks(down, up, frozenset(attending))


def renaming(blocks: Blocks) -> Renaming:
    """The table for a UNet of these blocks."""
    pairs = dict(_PLAIN)
    for stored, own in (*_resnets(blocks), ("middle_block.0", "mid_block.resnets.0"), ("middle_block.2", "mid_block.resnets.1")):
        pairs |= {f"{stored}.{mine}": f"{own}.{theirs}" for mine, theirs in _RESNET.items()}
    return Renaming(pairs | dict(_between(blocks)))


def _numbered(blocks: Blocks) -> Iterator[tuple[str, str, int]]:
    """Each resnet's place in the file, its block in the part and its number there, in order."""
    at = 1
    for i, layers in enumerate(blocks.down):
        yield from ((f"input_blocks.{at + j}", f"down_blocks.{i}", j) for j in range(layers))
        at += layers + 1
    at = 0
    for i, layers in enumerate(blocks.up):
        yield from ((f"output_blocks.{at + j}", f"up_blocks.{i}", j) for j in range(layers))
        at += layers


def _resnets(blocks: Blocks) -> Iterator[tuple[str, str]]:
    yield from ((f"{place}.0", f"{block}.resnets.{j}") for place, block, j in _numbered(blocks))


def _between(blocks: Blocks) -> Iterator[tuple[str, str]]:
    """Attention, and what makes pictures smaller and larger."""
    silent = {f"up_blocks.{i}" for i in range(len(blocks.up)) if i not in blocks.attending}
    yield from ((f"{place}.1", f"{block}.attentions.{j}") for place, block, j in _numbered(blocks) if block not in silent)
    at = 0
    for i, layers in enumerate(blocks.down[:-1]):
        at += layers + 1
        yield f"input_blocks.{at}.0.op", f"down_blocks.{i}.downsamplers.0.conv"
    at = -1
    for i, layers in enumerate(blocks.up[:-1]):
        at += layers
        yield f"output_blocks.{at}.{2 if i in blocks.attending else 1}.conv", f"up_blocks.{i}.upsamplers.0.conv"
