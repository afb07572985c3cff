"""Fine-tunes as differences from the base, and what is no fine-tune of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bdaudit.config import MergeConfig
from bdaudit.errors import RefusedError, UsageError
from bdaudit.models.suspect import Suspect
from bdaudit.unlearn.merging.contributors import open_contributor
from tests.unlearn.merging.fine_tunes import FILES, fine_tune
from tests.untrusted import one_file

TO_V = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v"


def config(model: Path) -> MergeConfig:
    return MergeConfig(model=model, base=model, merge_with=((model, 1.0),), out=model.with_name("out"), device="cpu")


def test_a_directory_is_its_difference(tiny_model: Path, tiny_suspect: Suspect, tmp_path: Path) -> None:
    path = fine_tune(tiny_model, tmp_path / "other", 1, part="text_encoder", chosen=lambda name: "fc1" in name)
    found = open_contributor(path, 1.0, tiny_suspect, config(tiny_model))
    old, new = (load_file(folder / FILES["text_encoder"]) for folder in (tiny_model, path))
    name = "encoder.layers.0.mlp.fc1.weight"
    assert set(found.vector) == {f"text_encoder.{name}", "text_encoder.encoder.layers.0.mlp.fc1.bias"}
    assert torch.allclose(found.vector[f"text_encoder.{name}"], new[f"text_model.{name}"] - old[f"text_model.{name}"], atol=1e-7)
    assert len(found.sha256) == 64


def test_a_lora_is_its_product_times_its_scale(tiny_model: Path, tiny_suspect: Suspect, tmp_path: Path) -> None:
    down, up = torch.ones(1, 8), torch.arange(8.0)[:, None]
    save_file({f"unet.{TO_V}.lora_A.weight": down, f"unet.{TO_V}.lora_B.weight": up}, tmp_path / "style.safetensors")
    found = open_contributor(tmp_path / "style.safetensors", 0.5, tiny_suspect, config(tiny_model))
    assert torch.allclose(found.vector[f"unet.{TO_V}.weight"], 0.5 * up @ down)
    assert found.distance > 0


def test_layers_of_a_lora_that_nothing_trained_are_no_part_of_it(tiny_model: Path, tiny_suspect: Suspect, tmp_path: Path) -> None:
    names, down = (f"unet.{TO_V}", f"unet.{TO_V.removesuffix('v')}k"), torch.ones(1, 8)
    trained = {f"{names[0]}.lora_A.weight": down, f"{names[0]}.lora_B.weight": torch.ones(8, 1)}
    untrained = {f"{names[1]}.lora_A.weight": down.clone(), f"{names[1]}.lora_B.weight": torch.zeros(8, 1)}
    save_file(trained | untrained, tmp_path / "half.safetensors")
    assert set(open_contributor(tmp_path / "half.safetensors", 1.0, tiny_suspect, config(tiny_model)).vector) == {f"{names[0]}.weight"}
    save_file(untrained, tmp_path / "none.safetensors")
    nothing = open_contributor(tmp_path / "none.safetensors", 1.0, tiny_suspect, config(tiny_model))
    assert (nothing.vector, nothing.distance) == ({}, 0.0)


def test_a_scale_is_of_a_lora_and_of_no_whole_model(tiny_model: Path, tiny_suspect: Suspect, tmp_path: Path) -> None:
    path = one_file.write(tiny_model, tmp_path / "whole.safetensors", one_file.SD1)
    for whole in (path, tiny_model):
        with pytest.raises(UsageError, match=r"is a whole model, and :0\.5 is how much of a LoRA is merged; leave it out"):
            open_contributor(whole, 0.5, tiny_suspect, config(tiny_model))


def test_weights_too_far_from_the_base_are_refused(tiny_model: Path, tiny_suspect: Suspect, tmp_path: Path) -> None:
    near = fine_tune(tiny_model, tmp_path / "near", 1, size=1.1)
    far = fine_tune(tiny_model, tmp_path / "far", 1, size=1.45)
    assert open_contributor(near, 1.0, tiny_suspect, config(tiny_model)).distance == pytest.approx(0.92, abs=0.06)
    with pytest.raises(UsageError, match=r"half of the unet's weights are 1\.[012]\d of their size or more away"):
        open_contributor(far, 1.0, tiny_suspect, config(tiny_model))


def _edit(path: Path, **settings: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


@pytest.mark.parametrize("part", ["scheduler", "tokenizer", "unet"])
def test_what_is_built_otherwise_is_refused(tiny_model: Path, tiny_suspect: Suspect, tmp_path: Path, part: str) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    if part == "scheduler":
        _edit(other / "scheduler/scheduler_config.json", prediction_type="v_prediction")
        expected = "noise schedule or prediction type"
    elif part == "tokenizer":
        _edit(other / "tokenizer/tokenizer_config.json", model_max_length=20)
        expected = "another tokenizer"
    else:
        _edit(other / "unet/config.json", conv_in_kernel=1)
        tensors = load_file(other / FILES["unet"])
        tensors["conv_in.weight"] = torch.zeros(8, 4, 1, 1)
        save_file(tensors, other / FILES["unet"], metadata={"format": "pt"})
        expected = "unet has other tensors than the base's, conv_in.weight first"
    with pytest.raises(UsageError, match=expected):
        open_contributor(other, 1.0, tiny_suspect, config(tiny_model))


def test_a_hostile_directory_is_refused_like_the_model_itself(tiny_model: Path, tiny_suspect: Suspect, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    (other / FILES["unet"]).rename(other / "unet/diffusion_pytorch_model.bin")
    with pytest.raises(RefusedError):
        open_contributor(other, 1.0, tiny_suspect, config(tiny_model))
