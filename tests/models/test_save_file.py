"""A repaired single file: the changed tensors' bytes at their places, all others as they were, and nothing that nobody looked at."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from bdaudit.errors import BdauditError
from bdaudit.models.save import check_writable, result_of, write_model
from bdaudit.untrusted.inspect import Inspection, inspect
from tests.small import hashes
from tests.untrusted import one_file

KEY = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"
STORED = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
CHANGES: dict[str, dict[str, Tensor]] = {
    "unet": {KEY: torch.full((8, 8), 0.5)},
    "text_encoder": {"encoder.layers.0.self_attn.k_proj.weight": torch.full((8, 8), 0.25)},
}


def written(inspection: Inspection, out: Path, differences: dict[str, dict[str, Tensor]] = CHANGES) -> Path:
    write_model(inspection, out, differences, {"bdaudit.json": b"{}"})
    return out / "model.safetensors"


def spans(path: Path, names: set[str]) -> set[int]:
    """The bytes that these tensors take."""
    inspection_header = inspect_header(path)
    start, tensors = len(inspection_header.prefix), inspection_header.tensors
    sizes = {"F32": 4, "F16": 2, "F8_E4M3": 1}
    of = ((start + tensors[name].begin, tensors[name].count * sizes[tensors[name].dtype]) for name in names)
    return {i for begin, length in of for i in range(begin, begin + length)}


def inspect_header(path: Path) -> Any:
    from bdaudit.tensor_file import open_tensors

    with open_tensors(path, str(path)) as file:
        return file.header


@pytest.mark.parametrize("spelling", ["transformers' CLIP", "open_clip's"])
def test_only_the_changed_tensors_bytes_differ(tiny_model: Path, tmp_path: Path, spelling: str) -> None:
    kind = one_file.SD1 if spelling == "transformers' CLIP" else one_file.SD2
    file = one_file.write(tiny_model, tmp_path / "model.safetensors", kind)
    before = hashes(tmp_path)
    again = written(inspect(file, config=tiny_model), tmp_path / "out")
    assert {path: digest for path, digest in hashes(tmp_path).items() if not path.startswith("out/")} == before
    assert sorted(os.listdir(tmp_path / "out")) == ["bdaudit.json", "model.safetensors"]
    keys = "cond_stage_model.transformer.text_model.encoder.layers.0.self_attn.k_proj.weight"
    text = keys if kind is one_file.SD1 else "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight"
    assert set(one_file.differing(file, again)) <= spans(file, {STORED, text})
    old, new = load_file(file), load_file(again)
    assert torch.equal(new[STORED], old[STORED] + 0.5)
    third = slice(None) if kind is one_file.SD1 else slice(8, 16)
    assert torch.equal(new[text][third], old[text][third] + 0.25)
    assert {name for name in old if not torch.equal(old[name], new[name])} == {STORED, text}
    with safe_open(again, "pt") as opened:
        assert opened.metadata() == {"modelspec.title": "kept to the bit"}


def test_the_result_is_a_model_of_the_same_layout(tiny_model: Path, tmp_path: Path) -> None:
    inspection = inspect(one_file.write(tiny_model, tmp_path / "model.safetensors"), config=tiny_model)
    written(inspection, tmp_path / "out")
    result = result_of(inspection, tmp_path / "out")
    assert result.weights == inspection.weights
    assert result.tensors != inspection.tensors
    directory = tmp_path / "directory"
    write_model(inspect(tiny_model), directory, CHANGES, {})
    assert result.tensors == inspect(directory).tensors


def test_a_moving_average_is_not_in_the_result(tiny_model: Path, tmp_path: Path) -> None:
    tensors = one_file.tensors_of(tiny_model)
    more = one_file.averaged(tensors) | {"lora.x": torch.ones(3)}
    file = one_file.write(tiny_model, tmp_path / "model.safetensors", **more)
    again = written(inspect(file, config=tiny_model), tmp_path / "out")
    new = load_file(again)
    assert new.keys() == tensors.keys()
    assert {name for name in new if not torch.equal(new[name], tensors[name])} == {
        STORED,
        "cond_stage_model.transformer.text_model.encoder.layers.0.self_attn.k_proj.weight",
    }
    assert inspect(again, config=tiny_model).unaudited == ()
    with safe_open(again, "pt") as opened:
        assert opened.metadata() == {"modelspec.title": "kept to the bit"}


def test_a_moving_average_that_was_repaired_takes_the_weights_place(tiny_model: Path, tmp_path: Path) -> None:
    tensors = scaled(one_file.tensors_of(tiny_model), 1 / 64)
    averages = one_file.averaged(one_file.tensors_of(tiny_model), 0.5)
    save_file(tensors | averages, tmp_path / "model.safetensors")
    inspection = inspect(tmp_path / "model.safetensors", variant="ema", config=tiny_model)
    assert inspection.digest != inspect(tmp_path / "model.safetensors", config=tiny_model).digest, "a patch of one is none of the other"
    check_writable(inspection, tmp_path / "out", "bdaudit.json")
    new = load_file(written(inspection, tmp_path / "out"))
    plain = one_file.tensors_of(tiny_model)
    assert new.keys() == {*plain, "model.diffusion_model.scaled_fp8"}
    for name, tensor in plain.items():
        if name.startswith("model.diffusion_model."):
            average = averages[f"model_ema.{name.removeprefix('model.').replace('.', '')}"]
            assert torch.equal(new[name], average + (0.5 if name == STORED else 0)), name
        elif "layers.0.self_attn.k_proj.weight" not in name:
            assert torch.equal(new[name], tensor), name
    result = result_of(inspection, tmp_path / "out")
    assert (result.variants["unet"], result.unaudited) == ("", ())


def test_of_split_files_those_are_written_that_change(tiny_model: Path, tmp_path: Path) -> None:
    parts = {part: tmp_path / part / "model.safetensors" for part in one_file.SD1}
    for part, path in parts.items():
        path.parent.mkdir()
        save_file(one_file.stored(one_file.part_tensors(tiny_model, part), part, "", one_file.SD1[part][1]), path)
    inspection = inspect(parts.pop("unet"), config=tiny_model, parts=parts)
    written(inspection, tmp_path / "out", {"text_encoder": CHANGES["text_encoder"]})
    assert sorted(hashes(tmp_path / "out")) == ["bdaudit.json", "text_encoder/model.safetensors"]
    result = result_of(inspection, tmp_path / "out")
    assert result.part_files["text_encoder"] == tmp_path / "out/text_encoder/model.safetensors"
    assert [file.path for file in result.written_in(tmp_path / "out")] == ["text_encoder/model.safetensors"]


def test_a_part_that_came_from_the_directory_is_written_as_it_lies_there(tiny_model: Path, tmp_path: Path) -> None:
    tensors = {name: t for name, t in one_file.tensors_of(tiny_model).items() if not name.startswith("cond_stage_model")}
    save_file(tensors, tmp_path / "model.safetensors")
    inspection = inspect(tmp_path / "model.safetensors", config=tiny_model)
    written(inspection, tmp_path / "out", {"text_encoder": CHANGES["text_encoder"]})
    assert sorted(hashes(tmp_path / "out")) == ["bdaudit.json", "text_encoder/model.safetensors"]
    result = result_of(inspection, tmp_path / "out")
    directory = tmp_path / "directory"
    write_model(inspect(tiny_model), directory, {"text_encoder": CHANGES["text_encoder"]}, {})
    assert result.tensors == inspect(directory).tensors


@pytest.mark.parametrize(
    ("difference", "said"), [(torch.zeros(8), "do not belong together"), (torch.full((8, 8), torch.inf), "is not finite")]
)
def test_a_difference_that_does_not_fit_leaves_nothing_behind(tiny_model: Path, tmp_path: Path, difference: Tensor, said: str) -> None:
    inspection = inspect(one_file.write(tiny_model, tmp_path / "model.safetensors"), config=tiny_model)
    with pytest.raises(BdauditError, match=said):
        written(inspection, tmp_path / "out", {"unet": {KEY: difference}})
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_a_tensor_that_the_part_has_not_leaves_nothing_behind(tiny_model: Path, tmp_path: Path) -> None:
    inspection = inspect(one_file.write(tiny_model, tmp_path / "model.safetensors"), config=tiny_model)
    with pytest.raises(BdauditError, match="no weights file holds another"):
        written(inspection, tmp_path / "out", {"unet": {"another": torch.zeros(1)}})
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_a_file_that_was_exchanged_since_is_not_copied(tiny_model: Path, tmp_path: Path) -> None:
    file = one_file.write(tiny_model, tmp_path / "model.safetensors")
    inspection = inspect(file, config=tiny_model)
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(BdauditError, match=r"model\.safetensors is not the file any more that was inspected"):
        written(inspection, tmp_path / "out")
    assert os.listdir(tmp_path) == ["model.safetensors"]


# --- 8-bit weights ----------------------------------------------------------------------------


def scaled(tensors: dict[str, Tensor], scale: float) -> dict[str, Tensor]:
    """A checkpoint whose UNet's matrices are 8-bit numbers beside a scale, as ComfyUI writes it."""
    found = dict(tensors)
    for name, tensor in tensors.items():
        if name.startswith("model.diffusion_model.") and name.endswith(".weight") and tensor.dim() == 2:
            found[name] = (tensor.float() / scale).to(torch.float8_e4m3fn)
            found[name.replace(".weight", ".scale_weight")] = torch.tensor(scale)
    return found | {"model.diffusion_model.scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}


@pytest.mark.parametrize(("difference", "rescaled"), [(1 / 64, False), (8.0, True)])
def test_scaled_numbers_are_written_by_their_scale_or_a_new_one(
    tiny_model: Path, tmp_path: Path, difference: float, rescaled: bool
) -> None:
    scale = 1 / 64
    save_file(scaled(one_file.tensors_of(tiny_model), scale), tmp_path / "model.safetensors")
    inspection = inspect(tmp_path / "model.safetensors", config=tiny_model)
    again = written(inspection, tmp_path / "out", {"unet": {KEY: torch.full((8, 8), difference)}})
    names = {STORED, STORED.replace(".weight", ".scale_weight")}
    assert set(one_file.differing(tmp_path / "model.safetensors", again)) <= spans(again, names)
    new, old = load_file(again), load_file(tmp_path / "model.safetensors")
    factor = new[STORED.replace(".weight", ".scale_weight")]
    assert (float(factor) != scale) == rescaled
    want = old[STORED].float() * scale + difference
    assert torch.allclose(new[STORED].float() * factor, want, rtol=1 / 16, atol=float(factor) / 64)
