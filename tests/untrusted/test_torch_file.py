"""Pickles that were asked for: tensors are loaded as they were saved, and nothing but tensors."""

from __future__ import annotations

import shutil
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bdaudit.errors import BdauditError, RefusedError
from bdaudit.models.load import load
from bdaudit.models.save import write_model
from bdaudit.untrusted import torch_file
from bdaudit.untrusted.inspect import inspect
from bdaudit.untrusted.torch_file import read_torch
from bdaudit.untrusted.tree import Reader
from tests.untrusted.edits import pickled, put

BINS = {
    "unet/diffusion_pytorch_model.safetensors": "unet/diffusion_pytorch_model.bin",
    "vae/diffusion_pytorch_model.safetensors": "vae/diffusion_pytorch_model.bin",
    "text_encoder/model.safetensors": "text_encoder/pytorch_model.bin",
}


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """The small model, all its weights as ``torch.save`` writes them."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    for old, new in BINS.items():
        torch.save(OrderedDict(load_file(folder / old)), folder / new)
        (folder / old).unlink()
    return folder


def saved(folder: Path, value: Any, **options: Any) -> dict[str, Any]:
    torch.save(value, folder / "x.bin", **options)
    return dict(read_torch(Reader(folder, {"x.bin": 1}), "x.bin"))


def test_pickles_are_refused_unless_asked_for(model: Path) -> None:
    with pytest.raises(RefusedError, match="could only be loaded by unpickling") as caught:
        inspect(model)
    assert len(caught.value.reasons) == 3


def test_the_same_model_comes_out(model: Path, tiny_model: Path) -> None:
    seen = inspect(model, allow_pickle=True, strict=True)
    assert seen.pickled == {"unet", "vae", "text_encoder"}
    assert set(BINS.values()) <= set(seen.loaded) & {file.path for file in seen.files}
    assert any("as tensors alone" in note for note in seen.notes)
    mine, plain = load(seen, device="cpu"), load(inspect(tiny_model), device="cpu")
    for name in ("unet", "vae", "text_encoder"):
        ours, theirs = mine.modules[name].state_dict(), plain.modules[name].state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_safetensors_win_where_they_are(model: Path, tiny_model: Path) -> None:
    for name in BINS:
        shutil.copy(tiny_model / name, model / name)
    seen = inspect(model, allow_pickle=True)
    assert not seen.pickled
    assert len(seen.unused_pickles) == 3
    with pytest.raises(RefusedError):
        inspect(model, allow_pickle=True, strict=True)


def test_what_is_written_again_holds_no_pickle(model: Path, tmp_path: Path) -> None:
    name = "conv_out.bias"
    write_model(inspect(model, allow_pickle=True), tmp_path / "out", {"unet": {name: torch.ones(4)}}, {})
    assert not list((tmp_path / "out").rglob("*.bin"))
    before = torch.load(model / BINS["unet/diffusion_pytorch_model.safetensors"], weights_only=True)[name]
    after = load(inspect(tmp_path / "out", strict=True), device="cpu")
    assert torch.equal(after.denoiser.module.state_dict()[name], before + 1)


def test_an_archive_exchanged_after_the_inspection(model: Path, tmp_path: Path) -> None:
    seen = inspect(model, allow_pickle=True)
    put(model / "unet/diffusion_pytorch_model.bin", pickled(tmp_path / "canary"))
    with pytest.raises(BdauditError):
        load(seen, device="cpu")
    assert not (tmp_path / "canary").exists()


def test_what_torch_saves_is_described(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).half()
    shared = torch.arange(6.0)
    value = {"p": torch.nn.Parameter(torch.ones(2, 3)), "view": shared[2:5], "whole": shared, "scalar": torch.tensor(1, dtype=torch.int8)}
    described = saved(tmp_path, {**module.state_dict(), **value, "b": torch.zeros(1, dtype=torch.bfloat16)})
    assert {name: (info.dtype, info.shape) for name, info in described.items()} == {
        "0.weight": ("F16", (2, 3)), "0.bias": ("F16", (2,)), "1.weight": ("F16", (2,)), "1.bias": ("F16", (2,)),
        "1.running_mean": ("F16", (2,)), "1.running_var": ("F16", (2,)), "1.num_batches_tracked": ("I64", ()),
        "p": ("F32", (2, 3)), "view": ("F32", (3,)), "whole": ("F32", (6,)), "scalar": ("I8", ()), "b": ("BF16", (1,)),
    }  # fmt: skip
    assert saved(tmp_path, module.state_dict()).keys() == module.state_dict().keys()


@pytest.mark.parametrize(
    "value",
    [{"a": torch.ones(2, 3).T}, {"a": torch.ones(1).expand(9)}, {"a": [torch.ones(1)]}, {1: torch.ones(1)}, [torch.ones(1)], {"a": 1.0}],
    ids=str,
)
def test_anything_but_dense_named_tensors_is_an_error(value: Any, tmp_path: Path) -> None:
    with pytest.raises(BdauditError, match="no plain dictionary of tensors"):
        saved(tmp_path, value)


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="NEWOBJ"):
        saved(tmp_path, torch.nn.Linear(1, 1))


def test_the_format_of_old_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"torch 1\.6"):
        saved(tmp_path, {"a": torch.ones(1)}, _use_new_zipfile_serialization=False)


def test_names_end_at_a_thousand_characters(tmp_path: Path) -> None:
    assert saved(tmp_path, {"a" * 1_000: torch.ones(1)})
    with pytest.raises(BdauditError, match="a tensor's name of 1,001 characters"):
        saved(tmp_path, {"a" * 1_001: torch.ones(1)})


def test_a_list_of_parts_is_read_as_far_as_a_model_has_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(saved(tmp_path, {str(i): torch.ones(1) for i in range(500)})) == 500
    monkeypatch.setattr(torch_file, "MAX_DIRECTORY", 10_000)
    with pytest.raises(BdauditError, match="a part of more than 10,000 bytes"):
        saved(tmp_path, {str(i): torch.ones(1) for i in range(500)})
    assert (torch_file.MAX_DIRECTORY, torch_file.MAX_PICKLE) == (10_000, 1 << 24)


@pytest.mark.parametrize("place", [20, 24], ids=["fewer bytes in the archive", "more bytes outside it"])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_part_that_is_packed_or_says_two_sizes_is_not_read(tmp_path: Path, method: int, place: int) -> None:
    """Of the central directory, whose entry has the size in the archive at 20 and the size outside at 24."""
    torch.save({"a": torch.ones(3)}, tmp_path / "x.bin")
    assert read_torch(Reader(tmp_path, {"x.bin": 1}), "x.bin")
    content = bytearray((tmp_path / "x.bin").read_bytes())
    at = content.rindex(b"PK\x01\x02")
    content[at + 10 : at + 12] = method.to_bytes(2, "little")
    if method == zipfile.ZIP_STORED:
        size = int.from_bytes(content[at + place : at + place + 4], "little") + (1 if place == 24 else -1)
        content[at + place : at + place + 4] = size.to_bytes(4, "little")
    (tmp_path / "x.bin").write_bytes(content)
    with pytest.raises(BdauditError, match="a compressed part"):
        read_torch(Reader(tmp_path, {"x.bin": 1}), "x.bin")


@pytest.mark.parametrize(("name", "given"), [("OrderedDict", ([("a", 1)],)), ("_rebuild_parameter", ()), ("_rebuild_tensor_v2", ())])
def test_a_call_with_other_arguments_than_torch_writes_is_told(name: str, given: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match=f"{name} of other arguments than torch.save writes"):
        torch_file._Named(name)(*given)
    assert torch_file._Named("OrderedDict")() == {}
