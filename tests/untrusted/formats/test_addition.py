"""An adapter or an embedding where a model was expected: what it is, what base it wants, and what to type."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from bdaudit.errors import ExitCode, InconclusiveError, UsageError
from bdaudit.untrusted.inspect import inspect


def kohya(width: int) -> dict[str, Tensor]:
    layer = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"
    tensors = {
        f"{layer}.lora_down.weight": torch.ones(2, width),
        f"{layer}.lora_up.weight": torch.ones(8, 2),
        f"{layer}.alpha": torch.ones(()),
    }
    return tensors | {"lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": torch.ones(4, 2)}


def said_of(path: Path) -> str:
    with pytest.raises(InconclusiveError) as raised:
        inspect(path)
    assert raised.value.code == ExitCode.INCONCLUSIVE
    return str(raised.value)


@pytest.mark.parametrize(
    ("tensors", "metadata", "said"),
    [
        (
            kohya(2048),
            {"ss_base_model_version": "sdxl_base_v1-0"},
            "x.safetensors is an adapter of 2 layers, and no model "
            "(its sizes are those of SDXL, and its header calls its base sdxl_base_v1-0); "
            "audit it with its base: `bdaudit scan BASE --lora x.safetensors`",
        ),
        (kohya(768), {}, "no model (its sizes are those of Stable Diffusion 1.x); audit"),
        (kohya(5), {}, "is an adapter of 2 layers, and no model; audit it"),
        (
            {"unet.a.attn2.processor.to_k_lora.down.weight": torch.ones(1, 1024)},
            {"modelspec.architecture": "\x1b[31m" + "x" * 500},
            "Stable Diffusion 2.x, and its header calls its base ",
        ),
        (
            {"emb_params": torch.ones(3, 768)},
            {},
            "is a learned embedding of 3 vectors, and no model (its sizes are those of Stable Diffusion 1.x); audit it with its base: "
            "`bdaudit scan BASE --embedding x.safetensors`",
        ),
        ({"clip_l": torch.ones(2, 768), "clip_g": torch.ones(2, 1280)}, {}, "of 2 vectors, and no model (its sizes are those of SDXL)"),
        ({"<toy>": torch.ones(999)}, {}, "is a learned embedding of 1 vectors, and no model; audit it"),
    ],
)
def test_a_file_is_told_what_it_is(tmp_path: Path, tensors: dict[str, Tensor], metadata: dict[str, str], said: str) -> None:
    save_file(tensors, tmp_path / "x.safetensors", metadata=metadata)
    found = said_of(tmp_path / "x.safetensors")
    assert said in found
    assert len(found) < 400
    assert found.isprintable()


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "pytorch_lora_weights.safetensors", "learned_embeds.safetensors"])
def test_a_directory_that_holds_one_alone_is_told_so_too(tmp_path: Path, name: str) -> None:
    tensors = {"<toy>": torch.ones(1, 4)} if "embeds" in name else {"base_model.model.conv_in.lora_A.weight": torch.ones(2, 4)}
    save_file(tensors, tmp_path / name)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/base", "peft_type": "LORA"}))
    said = said_of(tmp_path)
    assert f"{name} is {'a learned embedding' if 'embeds' in name else 'an adapter'} of 1" in said
    assert ("its header calls its base org/base" in said) == ("embeds" not in name)


@pytest.mark.parametrize(
    "tensors",
    [
        {"a.weight": torch.ones(2, 2), "b.weight": torch.ones(2, 2) + 1},
        {"decoder.conv_in.weight": torch.ones(2, 2, 3, 3)},
        {"<x>": torch.ones(1, 20_000)},
    ],
)
def test_what_is_neither_is_not_called_so(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    save_file(tensors, tmp_path / "x.safetensors")
    said = said_of(tmp_path / "x.safetensors")
    assert "holds no denoiser that is known by its names" in said
    assert "BASE" not in said
    (tmp_path / "README.md").write_text("nothing")
    with pytest.raises(UsageError, match=r"has no model_index\.json"):
        inspect(tmp_path)
