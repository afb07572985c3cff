"""What loading gives, and what it refuses with a message that says what to do."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from bdaudit.errors import BdauditError, InconclusiveError
from bdaudit.pipeline.inspect import inspect
from bdaudit.pipeline.load import choose_device, choose_dtype, load
from bdaudit.pipeline.suspect import Suspect
from tests.pipeline import tiny


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def test_all_is_loaded_frozen_and_in_evaluation_mode(tiny_suspect: Suspect) -> None:
    for module in (tiny_suspect.text_encoder, tiny_suspect.unet, tiny_suspect.vae):
        assert not module.training
        assert not any(p.requires_grad for p in module.parameters())
        assert {p.dtype for p in module.parameters()} == {torch.float32}


def test_the_loaded_weights_are_the_files(tiny_model: Path, tiny_suspect: Suspect) -> None:
    stored = load_file(tiny_model / "unet/diffusion_pytorch_model.safetensors")
    held = tiny_suspect.unet.state_dict()
    assert stored.keys() == held.keys()
    assert all(np.array_equal(stored[name], held[name].numpy()) for name in stored)
    text = load_file(tiny_model / "text_encoder/model.safetensors")["text_model.embeddings.token_embedding.weight"]
    assert np.array_equal(text, tiny_suspect.text_encoder.get_input_embeddings().weight.numpy())


def test_half_precision_is_asked_for_by_name(half_suspect: Suspect) -> None:
    assert half_suspect.dtype == torch.bfloat16
    assert {p.dtype for p in half_suspect.unet.parameters()} == {torch.bfloat16}


def test_auto_is_float32_on_the_cpu_and_bfloat16_on_a_gpu() -> None:
    assert choose_dtype("auto", torch.device("cpu")) == torch.float32
    assert choose_dtype("auto", torch.device("cuda")) == torch.bfloat16
    assert choose_dtype("float16", torch.device("cpu")) == torch.float16


@pytest.mark.parametrize("name", ["cuda:99", "no such thing"])
def test_a_device_that_is_not_there(name: str) -> None:
    with pytest.raises(BdauditError, match="--device"):
        choose_device(name)


def test_weights_that_are_not_finite(model: Path) -> None:
    path = model / "unet/diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["conv_in.weight"][0, 0, 0, 0] = np.nan
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(BdauditError, match=r"unet: weights hold NaN or infinity: conv_in\.weight"):
        load(inspect(model), device="cpu")


def test_a_tensor_that_is_missing(model: Path) -> None:
    path = model / "unet/diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    del tensors["conv_norm_out.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(BdauditError, match=r"conv_norm_out\.weight"):
        load(inspect(model), device="cpu")


def test_files_exchanged_after_the_inspection(model: Path) -> None:
    inspection = inspect(model)
    path = model / "unet/diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    save_file({name: 2 * value for name, value in tensors.items()}, path, metadata={"format": "pt"})
    with pytest.raises(BdauditError):
        load(inspection, device="cpu")


def test_a_prediction_type_that_is_not_known(model: Path) -> None:
    tiny.write_json(model / "scheduler/scheduler_config.json", tiny.SCHEDULER | {"prediction_type": "sample"})
    with pytest.raises(InconclusiveError, match="'sample'"):
        load(inspect(model), device="cpu")
