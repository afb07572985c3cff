"""The written directory: whole and minimal, or not there at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from bdaudit.errors import BdauditError, UsageError
from bdaudit.pipeline.inspect import inspect
from bdaudit.pipeline.save import check_target, write_model
from tests.small import hashes

NAME = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"
UNET = "unet/diffusion_pytorch_model.safetensors"


def changed() -> dict[str, dict[str, Tensor]]:
    return {"unet": {NAME: torch.full((8, 8), 0.5)}}


def test_only_the_changed_tensor_differs(tiny_model: Path, tmp_path: Path) -> None:
    before = hashes(tiny_model)
    write_model(inspect(tiny_model), tmp_path / "out", changed(), {"note.json": b"{}"})
    after = hashes(tmp_path / "out")
    assert hashes(tiny_model) == before
    assert after.keys() == before.keys() | {"note.json"}
    assert {name for name in before if after[name] != before[name]} == {UNET}
    old, new = load_file(tiny_model / UNET), load_file(tmp_path / "out" / UNET)
    assert {name for name in old if not torch.equal(old[name], new[name])} == {NAME}
    assert (new[NAME] == 0.5).all()


def test_an_empty_directory_may_be_written_to(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write_model(inspect(tiny_model), tmp_path / "out", changed(), {})
    assert (tmp_path / "out" / UNET).is_file()
    assert os.listdir(tmp_path) == ["out"]


def test_stored_names_with_the_text_models_prefix_are_found(tiny_model: Path, tmp_path: Path) -> None:
    new = torch.ones(8)
    write_model(inspect(tiny_model), tmp_path / "out", {"text_encoder": {"final_layer_norm.bias": new}}, {})
    stored = load_file(tmp_path / "out/text_encoder/model.safetensors")
    assert torch.equal(stored["text_model.final_layer_norm.bias"], new)


def test_a_tensor_keeps_its_stored_dtype(tiny_model: Path, tmp_path: Path) -> None:
    write_model(inspect(tiny_model), tmp_path / "out", {"unet": {NAME: torch.zeros(8, 8, dtype=torch.bfloat16)}}, {})
    assert load_file(tmp_path / "out" / UNET)[NAME].dtype == torch.float32


def test_stock_diffusers_loads_it(tiny_model: Path, tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    write_model(inspect(tiny_model), tmp_path / "out", changed(), {"bdaudit.json": b"{}"})
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "out")
    assert torch.equal(pipeline.unet.state_dict()[NAME], torch.full((8, 8), 0.5))


def test_a_tensor_that_no_file_holds_leaves_nothing_behind(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(BdauditError, match="no weights file holds another"):
        write_model(inspect(tiny_model), tmp_path / "out", {"unet": {"another": torch.zeros(1)}}, {})
    assert os.listdir(tmp_path) == []


def test_a_disk_that_fails_leaves_nothing_behind(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    inspection = inspect(tiny_model)
    monkeypatch.setattr("bdaudit.pipeline.save.os.rename", full)
    with pytest.raises(BdauditError, match="No space left"):
        write_model(inspection, tmp_path / "out", changed(), {})
    assert os.listdir(tmp_path) == []


def test_an_interrupt_leaves_nothing_behind(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    inspection = inspect(tiny_model)
    monkeypatch.setattr("bdaudit.pipeline.save.save_file", stopped)
    with pytest.raises(KeyboardInterrupt):
        write_model(inspection, tmp_path / "out", changed(), {})
    assert os.listdir(tmp_path) == []


def test_targets_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for out, said in ((tmp_path / "file", "is a file"), (tmp_path, "is not empty"), (tmp_path / "no/where", "does not exist")):
        with pytest.raises(UsageError, match=said):
            check_target(out)
    check_target(tmp_path / "new")
    (tmp_path / "empty").mkdir()
    check_target(tmp_path / "empty")
