"""open_clip's names: what diffusers' converter makes of the same tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bdaudit.untrusted.formats.names import open_clip
from bdaudit.untrusted.formats.names.renaming import Source
from tests.untrusted.one_file import stored

PREFIX = "conditioner.embedders.1.model."  # with the projection, which diffusers leaves out under Stable Diffusion 2's prefix


def tower(layers: int = 3) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "projection_dim": 16}
    return CLIPTextModelWithProjection(CLIPTextConfig(vocab_size=40, max_position_embeddings=8, num_hidden_layers=layers, **sizes))


def file_of(model: Any) -> dict[str, Tensor]:
    tensors = {name: tensor for name, tensor in model.state_dict().items() if "position_ids" not in name}
    return stored(tensors, "text_encoder", PREFIX, open_clip.sources_in_part)


def test_the_tensors_are_those_of_diffusers_converter() -> None:
    from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint

    model = tower()
    file = file_of(model)
    converted = convert_open_clip_checkpoint(model, dict(file), prefix=PREFIX)
    sources = open_clip.sources_in_file([name.removeprefix(PREFIX) for name in file], 3)
    assert {name for name in converted if "position_ids" not in name} <= sources.keys()
    for name, source in sources.items():
        held = file[PREFIX + source.name]
        third = held if source.third is None else held.chunk(3)[source.third]
        assert torch.equal(third.T if source.transposed else third, model.state_dict()[name])
        assert torch.equal(converted[name], model.state_dict()[name])


def test_both_ways_are_one() -> None:
    file = file_of(tower())
    names = [name.removeprefix(PREFIX) for name in file]
    sources = open_clip.sources_in_file(names, open_clip.layers_of_file(names))
    assert open_clip.sources_in_part(sources) == sources


def test_layers_beyond_those_that_are_used_are_left() -> None:
    names = [name.removeprefix(PREFIX) for name in file_of(tower())]
    assert open_clip.layers_of_file(names) == 3
    used = open_clip.sources_in_file(names, 2)
    assert not [name for name in used if "layers.2." in name]
    assert used.keys() < open_clip.sources_in_file(names, 3).keys()


@pytest.mark.parametrize("name", ["text_projection", "text_projection.weight"])
def test_a_projection_lies_either_way(name: str) -> None:
    assert open_clip.sources_in_file([name], 1) == {"text_projection.weight": Source(name, transposed=name == "text_projection")}
