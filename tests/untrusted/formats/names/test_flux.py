"""FLUX's names against diffusers' own converter, which knows them independently."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers.loaders import single_file_utils
from torch import Tensor

from bdaudit.errors import BdauditError
from bdaudit.untrusted.formats.names import flux
from bdaudit.untrusted.formats.names.renaming import Source
from tests.models import tiny_dit
from tests.untrusted import one_file

WIDTH = 16


def converter() -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """diffusers' own, with this model's width in place of FLUX's, which is written into it."""
    source = inspect.getsource(single_file_utils.convert_flux_transformer_checkpoint_to_diffusers)
    assert source.count("inner_dim = 3072") == 1
    names: dict[str, Any] = dict(vars(single_file_utils))
    exec(source.replace("inner_dim = 3072", f"inner_dim = {WIDTH}"), names)
    made: Callable[[dict[str, Tensor]], dict[str, Tensor]] = names["convert_flux_transformer_checkpoint_to_diffusers"]
    return made


def stored(guidance: bool, prefix: str = "") -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A transformer's tensors, and the same in the file's names."""
    own = tiny_dit.flux(guidance).transformer.state_dict()
    assert own["x_embedder.weight"].shape[0] == WIDTH
    return own, one_file.stored(own, "transformer", prefix, one_file.FLUX["transformer"][1])


def rows(tensors: dict[str, Tensor]) -> dict[str, int]:
    return {name: len(tensor) for name, tensor in tensors.items()}


@pytest.mark.parametrize("guidance", [True, False], ids=["dev", "schnell"])
def test_diffusers_makes_the_same_of_every_tensor(guidance: bool) -> None:
    own, held = stored(guidance, "model.diffusion_model.")
    made = converter()(dict(held))
    assert made.keys() == own.keys()
    assert all(torch.equal(made[name], tensor) for name, tensor in own.items())


@pytest.mark.parametrize("guidance", [True, False], ids=["dev", "schnell"])
def test_both_ways_say_the_same(guidance: bool) -> None:
    own, held = stored(guidance)
    assert flux.sources_in_file(rows(held)) == flux.sources_in_part(rows(own))


def test_what_lies_in_one_tensor_is_cut_and_the_last_modulation_turned() -> None:
    found = flux.sources_in_part(rows(stored(True)[0]))
    assert found["single_transformer_blocks.0.proj_mlp.bias"] == Source("single_blocks.0.linear1.bias", rows=(48, 112))
    assert found["transformer_blocks.0.attn.add_v_proj.weight"] == Source("double_blocks.0.txt_attn.qkv.weight", rows=(32, 48))
    assert found["norm_out.linear.weight"] == Source("final_layer.adaLN_modulation.1.weight", swapped=True)


def test_names_that_are_none_of_its_own_have_no_source() -> None:
    held = rows(stored(True)[1])
    more = {"double_blocks.0.img_attn.qkv.scale_weight": 1, "double_blocks.7.odd": 3, "final_layer.adaLN_modulation.1.scale_weight": 1}
    taken = {source.name for source in flux.sources_in_file(held | more).values()}
    assert taken == held.keys()


@pytest.mark.parametrize(
    ("name", "count"), [("double_blocks.0.img_attn.qkv.weight", 47), ("single_blocks.0.linear1.weight", 48), ("img_in.weight", 17)]
)
def test_a_fused_tensor_of_another_size_is_damage(name: str, count: int) -> None:
    with pytest.raises(BdauditError, match="rows, in which"):
        flux.sources_in_file(rows(stored(True)[1]) | {name: count})


def test_more_blocks_than_any_model_has_are_refused() -> None:
    assert flux.count(["double_blocks.255.x"], "double_blocks") == 256
    with pytest.raises(BdauditError, match="more blocks than any model has"):
        flux.sources_in_file({"double_blocks.256.x": 1})
