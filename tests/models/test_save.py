"""The written directory: whole and minimal, or not there at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bdaudit.errors import BdauditError
from bdaudit.models.save import check_writable, write_model
from bdaudit.untrusted.inspect import inspect
from tests.small import hashes
from tests.untrusted.ordinary import SHAPES, store

NAME = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"
UNET = "unet/diffusion_pytorch_model.safetensors"


def changed() -> dict[str, dict[str, Tensor]]:
    return {"unet": {NAME: torch.full((8, 8), 0.5)}}


def stored(model: Path) -> Tensor:
    return load_file(model / UNET)[NAME]


def test_only_the_changed_tensor_differs(tiny_model: Path, tmp_path: Path) -> None:
    before = hashes(tiny_model)
    write_model(inspect(tiny_model), tmp_path / "out", changed(), {"note.json": b"{}"})
    after = hashes(tmp_path / "out")
    assert hashes(tiny_model) == before
    assert after.keys() == before.keys() | {"note.json"}
    assert {name for name in before if after[name] != before[name]} == {UNET}
    old, new = load_file(tiny_model / UNET), load_file(tmp_path / "out" / UNET)
    assert {name for name in old if not torch.equal(old[name], new[name])} == {NAME}
    assert torch.equal(new[NAME], old[NAME] + 0.5)


@pytest.mark.parametrize(
    "shape", ["fp16 beside the full weights", "a 16-bit copy of it all in a folder", "a UNet in one file, fp16 in two"]
)
def test_only_the_weights_that_were_audited_are_in_the_result(tiny_model: Path, tmp_path: Path, shape: str) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    SHAPES[shape](model)
    for path in model.rglob("*.safetensors"):  # whatever it holds: what was not loaded is not handed on
        if path.relative_to(model).parts[0] == "fp16" or "fp16" in path.name:
            save_file({name: tensor * 3 for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})
    store(model / "unet/ema/model.safetensors", load_file(model / UNET))
    store(model / "unet/pytorch_lora_weights.safetensors", {"a.lora.b": torch.zeros(1)})
    write_model(inspect(model), tmp_path / "out", changed(), {})
    assert hashes(tmp_path / "out").keys() == hashes(tiny_model).keys()
    assert inspect(tmp_path / "out").unaudited == ()


def test_a_safety_checker_stays_with_the_result(tiny_model: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    SHAPES["a safety checker"](model)
    write_model(inspect(model), tmp_path / "out", changed(), {})
    assert "safety_checker/model.safetensors" in hashes(tmp_path / "out")


def test_an_empty_directory_may_be_written_to(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write_model(inspect(tiny_model), tmp_path / "out", changed(), {})
    assert (tmp_path / "out" / UNET).is_file()
    assert os.listdir(tmp_path) == ["out"]


def test_stored_names_with_the_text_models_prefix_are_found(tiny_model: Path, tmp_path: Path) -> None:
    write_model(inspect(tiny_model), tmp_path / "out", {"text_encoder": {"final_layer_norm.bias": torch.ones(8)}}, {})
    before, after = (load_file(folder / "text_encoder/model.safetensors") for folder in (tiny_model, tmp_path / "out"))
    name = "text_model.final_layer_norm.bias"
    assert torch.equal(after[name], before[name] + 1)


def test_a_tensor_keeps_its_stored_dtype_and_gets_the_difference_in_full(tiny_model: Path, tmp_path: Path) -> None:
    half = tmp_path / "half"
    shutil.copytree(tiny_model, half)
    save_file({name: tensor.half() for name, tensor in load_file(half / UNET).items()}, half / UNET, metadata={"format": "pt"})
    before = stored(half)
    write_model(inspect(half), tmp_path / "out", {"unet": {NAME: torch.full((8, 8), 0.25) - before.float()}}, {})
    assert torch.equal(stored(tmp_path / "out"), torch.full((8, 8), 0.25, dtype=torch.float16))


@pytest.mark.parametrize(
    ("difference", "said"), [(torch.zeros(8), "do not belong together"), (torch.full((8, 8), torch.inf), "not finite")]
)
def test_a_difference_that_does_not_fit_leaves_nothing_behind(tiny_model: Path, tmp_path: Path, difference: Tensor, said: str) -> None:
    with pytest.raises(BdauditError, match=said):
        write_model(inspect(tiny_model), tmp_path / "out", {"unet": {NAME: difference}}, {})
    assert os.listdir(tmp_path) == []


def test_stock_diffusers_loads_it(tiny_model: Path, tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    write_model(inspect(tiny_model), tmp_path / "out", changed(), {"bdaudit.json": b"{}"})
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "out")
    assert torch.equal(pipeline.unet.state_dict()[NAME], stored(tiny_model) + 0.5)


def test_a_tensor_that_no_file_holds_leaves_nothing_behind(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(BdauditError, match="no weights file holds another"):
        write_model(inspect(tiny_model), tmp_path / "out", {"unet": {"another": torch.zeros(1)}}, {})
    assert os.listdir(tmp_path) == []


def test_a_disk_that_fails_leaves_nothing_behind(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    inspection = inspect(tiny_model)
    monkeypatch.setattr("bdaudit.models.save.os.rename", full)
    with pytest.raises(BdauditError, match="No space left"):
        write_model(inspection, tmp_path / "out", changed(), {})
    assert os.listdir(tmp_path) == []


def test_an_interrupt_leaves_nothing_behind(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    inspection = inspect(tiny_model)
    monkeypatch.setattr("bdaudit.models.save.save_file", stopped)
    with pytest.raises(KeyboardInterrupt):
        write_model(inspection, tmp_path / "out", changed(), {})
    assert os.listdir(tmp_path) == []


def replaced(path: Path, outside: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(bytes(reversed(path.read_bytes())))
    other.replace(path)


def linked_out(path: Path, outside: Path) -> None:
    outside.write_bytes(b"behind a link")
    path.unlink()
    path.symlink_to(outside)


def linked_to_the_same(path: Path, outside: Path) -> None:
    shutil.move(path, outside)
    path.symlink_to(outside)


def piped(path: Path, outside: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def longer(path: Path, outside: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\n" * (3 << 20))


def gone(path: Path, outside: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("name", ["text_encoder/model.safetensors", "tokenizer/tokenizer.json", UNET])
@pytest.mark.parametrize("exchange", [replaced, linked_out, linked_to_the_same, piped, longer, gone])
def test_a_file_exchanged_since_the_inspection_is_an_error_and_nothing_is_written(
    tiny_model: Path, tmp_path: Path, name: str, exchange: Callable[[Path, Path], None]
) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    inspection = inspect(model)
    exchange(model / name, tmp_path / "outside")
    with pytest.raises(BdauditError) as raised:
        write_model(inspection, tmp_path / "out", changed(), {})
    assert raised.value.code == 3
    assert set(os.listdir(tmp_path)) <= {"model", "outside"}


def test_files_that_came_since_the_inspection_are_not_copied(tiny_model: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    inspection = inspect(model)
    (model / "unet/modeling.py").write_text("raise SystemExit")
    write_model(inspection, tmp_path / "out", changed(), {})
    assert hashes(tmp_path / "out").keys() == hashes(tiny_model).keys()


def test_a_copy_that_does_not_pass_the_inspection_is_not_written(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(BdauditError, match=r"does not pass the inspection: .*pipeline\.py") as raised:
        write_model(inspect(tiny_model), tmp_path / "out", changed(), {"pipeline.py": b"raise SystemExit"})
    assert raised.value.code == 3
    assert os.listdir(tmp_path) == []


def test_what_would_stop_the_writing_is_told_before_the_work(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    check_writable(inspect(model), tmp_path / "out", "bdaudit.json")
    (model / "bdaudit.json").write_text("{}")
    check_writable(inspect(model), tmp_path / "out", "bdaudit.json")
    (model / "bdaudit.json").unlink()
    (model / "bdaudit.json").mkdir()
    (model / "bdaudit.json/note.txt").write_text("x")
    with pytest.raises(BdauditError, match=r"holds a folder bdaudit\.json, where the record of the result belongs"):
        check_writable(inspect(model), tmp_path / "out", "bdaudit.json")
    shutil.rmtree(model / "bdaudit.json")
    whole = sum(file.bytes for file in inspect(model).copied)
    for free, fits in ((whole + (1 << 20), True), (whole + (1 << 20) - 1, False)):
        disk = SimpleNamespace(f_bavail=free, f_frsize=1, f_blocks=free)
        monkeypatch.setattr("os.statvfs", lambda _, disk=disk: disk)
        if fits:
            check_writable(inspect(model), tmp_path / "out", "bdaudit.json")
            continue
        with pytest.raises(BdauditError, match=r"--out .* takes .* MB, the disk has .* MB free; make room"):
            check_writable(inspect(model), tmp_path / "out", "bdaudit.json")
        check_writable(inspect(model), None, "bdaudit.json")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float16])
def test_a_dtype_that_holds_no_repair_is_told_before_the_work(tiny_model: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    tensors = load_file(model / UNET)
    save_file({name: tensor.to(dtype) for name, tensor in tensors.items()}, model / UNET)
    if dtype == torch.float16:
        check_writable(inspect(model), tmp_path / "out", "bdaudit.json")
        return
    with pytest.raises(BdauditError, match=r"in F8_E(4M3|5M2), in which no repair can be written back; save the model in float16"):
        check_writable(inspect(model), None, "bdaudit.json")
