"""What a change becomes in its file: rounded to the file's type, read back, and never lost unseen."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bdaudit.models.rounding import rounded, stored
from bdaudit.models.save import write_model
from bdaudit.untrusted.inspect import inspect
from tests.untrusted import one_file

UNET = "unet/diffusion_pytorch_model.safetensors"
NAME = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_plain_types_round_to_the_nearest(dtype: torch.dtype) -> None:
    value = torch.linspace(-3, 3, 101)
    assert torch.equal(stored(value, dtype).read(), value.to(dtype).float())


def test_a_scale_stays_while_the_numbers_fit() -> None:
    numbers = torch.tensor([-448.0, 3.5, 0.0, 448.0]).to(torch.float8_e4m3fn)
    scale = torch.tensor(0.01)
    same = stored(numbers.float() * scale, torch.float8_e4m3fn, scale)
    assert torch.equal(same.numbers.float(), numbers.float())
    assert same.scale is scale


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_larger_number_takes_a_new_scale(kind: torch.dtype, shape: tuple[int, ...]) -> None:
    value = torch.tensor([-10.0, 1.0, 0.125, 3.0])
    new = stored(value, torch.float8_e4m3fn, torch.full(shape, 0.01, dtype=kind))
    assert new.scale is not None
    assert (new.scale.shape, new.scale.dtype) == (shape, kind)
    assert float(new.scale) == pytest.approx(10 / 448, rel=4e-3)
    assert torch.allclose(new.read(), value, rtol=1 / 16, atol=0.01)
    assert bool(new.numbers.float().isfinite().all())


def halved(model: Path, folder: Path) -> Path:
    """The model in float16."""
    copy = Path(shutil.copytree(model, folder / "half"))
    for path in copy.glob("*/*.safetensors"):
        save_file({name: tensor.half() for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})
    return copy


@pytest.mark.parametrize("shape", ["directory", "single file"])
def test_what_is_left_of_a_difference_is_what_is_read_back(tiny_model: Path, tmp_path: Path, shape: str) -> None:
    model = halved(tiny_model, tmp_path)
    old = load_file(model / UNET)[NAME].float()
    file = one_file.write(model, tmp_path / "model.safetensors")
    inspection = inspect(model) if shape == "directory" else inspect(file, config=model)
    difference = torch.full_like(old, 1e-3) + torch.randn(old.shape, generator=torch.Generator().manual_seed(0)) * 1e-5
    exact = rounded(inspection, {"unet": {NAME: difference}})["unet"][NAME]
    assert not torch.equal(exact, difference)
    assert torch.equal(old + exact, (old + difference).half().float())
    write_model(inspection, tmp_path / "out", {"unet": {NAME: exact}}, {})
    again = tmp_path / "out" / ("model.safetensors" if shape == "single file" else UNET)
    prefix = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    assert torch.equal(load_file(again)[prefix if shape == "single file" else NAME].float(), old + exact)


def test_a_difference_below_the_files_precision_is_none(tiny_model: Path, tmp_path: Path) -> None:
    model = halved(tiny_model, tmp_path)
    exact = rounded(inspect(model), {"unet": {NAME: torch.full((8, 8), 1e-9)}})
    assert not bool(exact["unet"][NAME].any())


def test_32_bit_tensors_take_a_difference_as_it_is(tiny_model: Path) -> None:
    difference = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    assert rounded(inspect(tiny_model), {"unet": {NAME: difference}})["unet"][NAME] is difference
