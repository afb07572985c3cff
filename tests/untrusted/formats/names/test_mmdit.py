"""The names of Stable Diffusion 3 against diffusers' own converter, which knows them independently."""

from __future__ import annotations

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers
from torch import Tensor

from bdaudit.errors import BdauditError
from bdaudit.untrusted.formats.names import mmdit
from bdaudit.untrusted.formats.names.renaming import Source
from tests.models import tiny_dit
from tests.untrusted import one_file


def stored(dual: tuple[int, ...], prefix: str = "") -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A transformer's tensors, and the same in the file's names."""
    own = tiny_dit.sd3(dual=dual).transformer.state_dict()
    return own, one_file.stored(own, "transformer", prefix, one_file.SD3["transformer"][1])


def rows(tensors: dict[str, Tensor]) -> dict[str, int]:
    return {name: len(tensor) for name, tensor in tensors.items()}


@pytest.mark.parametrize("dual", [(), (0,)], ids=["3", "3.5"])
def test_diffusers_makes_the_same_of_every_tensor(dual: tuple[int, ...]) -> None:
    own, held = stored(dual, "model.diffusion_model.")
    made = convert_sd3_transformer_checkpoint_to_diffusers(dict(held))
    assert made.keys() == own.keys()
    assert all(torch.equal(made[name], tensor) for name, tensor in own.items())


@pytest.mark.parametrize("dual", [(), (0,)], ids=["3", "3.5"])
def test_both_ways_say_the_same(dual: tuple[int, ...]) -> None:
    own, held = stored(dual)
    assert mmdit.sources_in_file(rows(held)) == mmdit.sources_in_part(rows(own))


def test_the_last_blocks_text_modulation_is_turned_and_the_others_are_not() -> None:
    found = mmdit.sources_in_part(rows(stored(())[0]))
    first, last = (found[f"transformer_blocks.{i}.norm1_context.linear.bias"] for i in (0, 1))
    assert first == Source("joint_blocks.0.context_block.adaLN_modulation.1.bias")
    assert last == Source("joint_blocks.1.context_block.adaLN_modulation.1.bias", swapped=True)


def test_a_fused_tensor_of_another_size_is_damage() -> None:
    with pytest.raises(BdauditError, match="rows, in which"):
        mmdit.sources_in_file(rows(stored(())[1]) | {"joint_blocks.1.x_block.attn.qkv.bias": 49})
