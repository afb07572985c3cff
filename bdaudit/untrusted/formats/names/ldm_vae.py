"""CompVis' autoencoder and diffusers' ``AutoencoderKL``: the same layers; CompVis counts the decoder's blocks from the picture inwards."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from bdaudit.errors import BdauditError
from bdaudit.untrusted.formats.names.renaming import Renaming, Source

_HALVES = ("encoder", "decoder")
_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
_PROJECTION = re.compile(r".*\.attentions\.0\.to_(q|k|v|out\.0)\.weight")
MOST = 16
"""Blocks of a half, and resnets of a block; Stable Diffusion has 4 of 3."""


def sources_in_file(names: Iterable[str]) -> dict[str, Source]:
    """diffusers' name → source, of a file's names without the VAE's prefix; raises as ``_depth``."""
    names = list(names)
    return {own: _flat(own, source) for own, source in renaming(*depth_of_file(names)).sources(names).items()}


def sources_in_part(names: Iterable[str]) -> dict[str, Source]:
    """The same, told by diffusers' names."""
    names = list(names)
    table = renaming(*depth_of_part(names))
    return {name: _flat(name, Source(stored)) for name in names if (stored := table.stored(name))}


def _flat(own: str, source: Source) -> Source:
    return replace(source, flat=True) if _PROJECTION.fullmatch(own) else source


def depth_of_file(names: Iterable[str]) -> tuple[int, int]:
    """Blocks of the decoder, and the most resnets in a block, by a file's names without the VAE's prefix; raises as ``_depth``."""
    return _depth(names, r"(?:encoder\.down|decoder\.up)\.(\d+)\.block\.(\d+)\.")


def depth_of_part(names: Iterable[str]) -> tuple[int, int]:
    """The same by diffusers' names."""
    return _depth(names, r"(?:encoder\.down|decoder\.up)_blocks\.(\d+)\.resnets\.(\d+)\.")


def _depth(names: Iterable[str], pattern: str) -> tuple[int, int]:
    """Raises ``BdauditError`` for more than any autoencoder has."""
    found = [(int(match[1][:9]), int(match[2][:9])) for name in names if (match := re.match(pattern, name, re.ASCII))]
    blocks, resnets = (1 + max((each[axis] for each in found), default=-1) for axis in (0, 1))
    if max(blocks, resnets) > MOST:
        raise BdauditError(f"an autoencoder of {blocks} blocks of {resnets} resnets; at most {MOST} are read; the checkpoint is damaged")
    return blocks, resnets


def renaming(blocks: int, resnets: int) -> Renaming:
    """The table for an autoencoder whose halves have ``blocks`` blocks of at most ``resnets`` resnets."""
    pairs = {f"{name}conv": f"{name}conv" for name in ("quant_", "post_quant_")}
    for half in _HALVES:
        pairs |= {f"{half}.conv_in": f"{half}.conv_in", f"{half}.conv_out": f"{half}.conv_out", f"{half}.norm_out": f"{half}.conv_norm_out"}
        pairs |= {f"{half}.mid.attn_1.{stored}": f"{half}.mid_block.attentions.0.{own}" for stored, own in _ATTENTION.items()}
        for i in (0, 1):
            pairs |= _resnet(f"{half}.mid.block_{i + 1}", f"{half}.mid_block.resnets.{i}")
    for i in range(blocks):
        outer = blocks - 1 - i
        pairs[f"encoder.down.{i}.downsample.conv"] = f"encoder.down_blocks.{i}.downsamplers.0.conv"
        pairs[f"decoder.up.{outer}.upsample.conv"] = f"decoder.up_blocks.{i}.upsamplers.0.conv"
        for j in range(resnets):
            pairs |= _resnet(f"encoder.down.{i}.block.{j}", f"encoder.down_blocks.{i}.resnets.{j}")
            pairs |= _resnet(f"decoder.up.{outer}.block.{j}", f"decoder.up_blocks.{i}.resnets.{j}")
    return Renaming(pairs)


def _resnet(stored: str, own: str) -> dict[str, str]:
    same = {f"{stored}.{name}": f"{own}.{name}" for name in ("norm1", "conv1", "norm2", "conv2")}
    return {**same, f"{stored}.nin_shortcut": f"{own}.conv_shortcut"}
