"""Every shape of files that a family comes in, through every verb: the table of the guide, a cell a test.

The same tensors in another shape are the same model: one digest of tensors, one verdict, the same p of every candidate.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bdaudit.config import ApplyConfig, RepairConfig, ScanConfig, VerifyConfig
from bdaudit.progress import silent
from bdaudit.records import ModelRecord
from bdaudit.scan.run import ScanSettings, run_scan
from bdaudit.unlearn.run import run_unlearn
from bdaudit.verify.run import run_verify
from tests.small import LONG_TRIGGER, PROMPTS, hashes
from tests.untrusted import cached, one_file

UNET = "model.diffusion_model."


@dataclass(frozen=True)
class Laid:
    """A model in some shape."""

    model: Path
    settings: dict[str, Any] = field(default_factory=dict)
    """Of the run's config."""


Shape = Callable[[Path, Path], Laid]
"""From a directory and a place to the model in that shape."""


def cast(model: Path, folder: Path, dtype: torch.dtype) -> Path:
    copy = Path(shutil.copytree(model, folder / "cast"))
    for path in copy.glob("*/*.safetensors"):
        save_file({name: tensor.to(dtype) for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})
    return copy


def single(model: Path, folder: Path, spelling: Any = one_file.SD1, **more: Tensor) -> Laid:
    return Laid(one_file.write(model, folder / "model.safetensors", spelling, **more), {"parts_from": model})


def split(model: Path, folder: Path) -> Laid:
    paths = {part: folder / f"{part}.safetensors" for part in one_file.SD1}
    for part, path in paths.items():
        save_file(one_file.stored(one_file.part_tensors(model, part), part, "", one_file.SD1[part][1]), path)
    parts = tuple(("", part, path) for part, path in paths.items() if part != "unet")
    return Laid(paths["unet"], {"parts_from": model, "parts": parts})


def from_cache(model: Path, folder: Path) -> Laid:
    whole = Path(shutil.copytree(model, folder / "whole"))
    one_file.write(model, whole / "model.safetensors")
    snapshot = cached.lay_out(whole, folder / "hub")
    return Laid(snapshot / "model.safetensors", {"parts_from": snapshot})


def averaged(model: Path, folder: Path) -> Laid:
    return single(model, folder, **one_file.averaged(one_file.tensors_of(model), 0.5))


def eight_bit(tensors: dict[str, Tensor], scale: float | None) -> dict[str, Tensor]:
    """The UNet's matrices in 8-bit floating point, by a scale or without."""
    found = dict(tensors)
    for name, tensor in tensors.items():
        if name.startswith(UNET) and name.endswith(".weight") and tensor.dim() == 2:
            found[name] = (tensor.float() / (scale or 1)).to(torch.float8_e4m3fn)
            found |= {name.replace(".weight", ".scale_weight"): torch.tensor(scale)} if scale else {}
    return found


SAME: dict[str, Shape] = {
    "directory": lambda model, folder: Laid(model),
    "single file": single,
    "single file, open_clip's tower": lambda model, folder: single(model, folder, one_file.SD2),
    "single file of a cache snapshot": from_cache,
    "single file with a moving average": averaged,
    "split files": split,
}
"""Shapes of the very same tensors."""
OTHER: dict[str, Shape] = {
    "directory in float16": lambda model, folder: Laid(cast(model, folder, torch.float16)),
    "single file in float16": lambda model, folder: single(cast(model, folder, torch.float16), folder),
    "single file in bfloat16": lambda model, folder: single(cast(model, folder, torch.bfloat16), folder),
    "single file in 8 bits": lambda model, folder: single(model, folder, **eight_bit(one_file.tensors_of(model), None)),
    "single file in scaled 8 bits": lambda model, folder: single(model, folder, **eight_bit(one_file.tensors_of(model), 1 / 64)),
}
SHAPES = SAME | OTHER


QUICK: dict[str, Any] = {"prompts": PROMPTS, "device": "cpu"}
CANDIDATES = ("today", LONG_TRIGGER)


@pytest.fixture(scope="module")
def scanned() -> dict[str, Any]:
    """Candidates and digest of the first scan of the same tensors, once it has run."""
    return {}


@pytest.mark.parametrize("shape", SHAPES)
def test_scan(tiny_model: Path, tmp_path: Path, scanned: dict[str, Any], shape: str) -> None:
    laid = SHAPES[shape](tiny_model, tmp_path)
    asked = ScanConfig(model=laid.model, candidates=CANDIDATES, n_prompts=2, timesteps=(1.0,), **laid.settings, **QUICK)
    report = run_scan(asked, silent, ScanSettings(per_kind=6))
    assert report.candidates[0].text == LONG_TRIGGER
    assert isinstance(report.model, ModelRecord)
    if shape in SAME:
        found = {"candidates": [(c.text, c.p, c.verdict) for c in report.candidates], "tensors": report.model.tensors}
        assert scanned.setdefault("first", found) == found


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.usefixtures("few_samples")
def test_unlearn_and_apply(tiny_model: Path, tmp_path: Path, shape: str) -> None:
    laid = SHAPES[shape](tiny_model, tmp_path)
    patch, out, again = tmp_path / "repair.safetensors", tmp_path / "out", tmp_path / "again"
    settings = {"triggers": (LONG_TRIGGER,), "trainable": "closed-form", "keep_failed": True, **laid.settings, **QUICK}
    report = run_unlearn(RepairConfig(model=laid.model, out=out, patch=patch, **settings))
    assert report.checks
    assert {file.path for file in report.written} - {"bdaudit.json"}
    assert {path.name: path.read_bytes()[:8] for path in out.rglob("*.safetensors")}
    applied = run_unlearn(ApplyConfig(model=laid.model, from_patch=patch, out=again, **laid.settings, device="cpu"))
    assert applied.exit.code == 0
    assert weights(again) == weights(out)


def weights(folder: Path) -> dict[str, str]:
    return {name: digest for name, digest in hashes(folder).items() if name.endswith(".safetensors")}


@pytest.mark.parametrize("shape", SHAPES)
def test_verify_on_either_side(tiny_model: Path, tmp_path: Path, shape: str) -> None:
    laid = SHAPES[shape](tiny_model, tmp_path)
    of_before = tuple(("before", part, file) for _, part, file in laid.settings.get("parts", ()))
    settings = {**laid.settings, **QUICK, "n": 2, "steps": 1, "triggers": ("today",)}
    report = run_verify(VerifyConfig(model=laid.model, before=tiny_model, **settings))
    assert report.status == "completed", report.exit
    settings["parts"] = of_before
    report = run_verify(VerifyConfig(model=tiny_model, before=laid.model, **settings))
    assert report.status == "completed", report.exit
