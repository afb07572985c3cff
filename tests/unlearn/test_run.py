"""`unlearn` from directory to directory on the small model."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bdaudit.config import UnlearnConfig
from bdaudit.errors import BdauditError, ExitCode, InconclusiveError, UsageError
from bdaudit.measure.controls import harmless_texts
from bdaudit.pipeline.suspect import Suspect
from bdaudit.unlearn.run import run_unlearn
from tests.small import LONG_TRIGGER, PROMPTS, hashes

FILES = {"unet": "unet/diffusion_pytorch_model.safetensors", "text-encoder": "text_encoder/model.safetensors"}


@pytest.fixture(autouse=True)
def small_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bdaudit.unlearn.run.N_NULL", 25)
    monkeypatch.setattr("bdaudit.unlearn.check.N_PICTURES", 8)


def config(model: Path, out: Path, **options: Any) -> UnlearnConfig:
    settings: dict[str, Any] = {"triggers": (LONG_TRIGGER,), "prompts": PROMPTS, "steps": 3, "device": "cpu", "keep_failed": True}
    return UnlearnConfig(model=model, out=out, **(settings | options))


@pytest.mark.parametrize("component", ["unet", "text-encoder"])
def test_only_the_named_component_changes(tiny_model: Path, tmp_path: Path, component: Any) -> None:
    from diffusers import StableDiffusionPipeline

    before = hashes(tiny_model)
    report = run_unlearn(config(tiny_model, tmp_path / "out", component=component))
    after = hashes(tmp_path / "out")
    assert hashes(tiny_model) == before, "the input is never written"
    assert os.listdir(tmp_path) == ["out"]
    assert after.keys() == before.keys() | {"bdaudit.json"}
    assert {name for name in before if before[name] != after[name]} == {FILES[component]}
    old, new = (load_file(folder / FILES[component]) for folder in (tiny_model, tmp_path / "out"))
    moved = {name.removeprefix("text_model.") for name in old if not torch.equal(old[name], new[name])}
    assert moved == {changed.name.split(".", 1)[1] for changed in report.changed}
    assert {f.path: f.sha256 for f in report.written}.items() <= after.items()
    assert report.component == component
    assert StableDiffusionPipeline.from_pretrained(tmp_path / "out").unet is not None
    provenance = json.loads((tmp_path / "out/bdaudit.json").read_text())
    assert provenance["triggers"] == [LONG_TRIGGER]
    assert provenance["input_digest"] == report.model.digest  # type: ignore[union-attr]


def test_a_repair_that_fails_its_check_is_not_written(tiny_model: Path, tmp_path: Path) -> None:
    report = run_unlearn(config(tiny_model, tmp_path / "out", steps=1, learning_rate=1e-9, keep_failed=False, component="unet"))
    assert report.exit.code == ExitCode.FINDING
    assert report.out == ""
    assert [c for c in report.checks if c.status == "failed"]
    assert os.listdir(tmp_path) == []


def test_in_half_precision_with_checks_on_the_way(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bdaudit.unlearn.run.CHECK_EVERY", 1)
    report = run_unlearn(config(tiny_model, tmp_path / "out", dtype="bfloat16", component="unet"))
    assert report.steps in (2, 3)
    assert report.changed


def test_a_trigger_that_does_nothing(tiny_model: Path, tiny_suspect: Suspect, tmp_path: Path) -> None:
    weak = harmless_texts(tiny_suspect.tokenizer, "time", 3, 5)[1]
    with pytest.raises(InconclusiveError, match="found no effect to remove"):
        run_unlearn(config(tiny_model, tmp_path / "out", triggers=(weak,)))
    assert os.listdir(tmp_path) == []


def test_a_trigger_that_encodes_to_nothing(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(InconclusiveError, match="encodes to no token"):
        run_unlearn(config(tiny_model, tmp_path / "out", triggers=(" ",)))
    assert os.listdir(tmp_path) == []


def test_a_target_that_is_not_empty_is_refused_before_the_model_is_read(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("x")
    with pytest.raises(UsageError, match="is not empty"):
        run_unlearn(config(tmp_path / "no such model", tmp_path / "out"))
    assert (tmp_path / "out/mine").read_text() == "x"


def test_a_disk_that_fails_leaves_nothing_behind(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bdaudit.pipeline.save.os.rename", full)
    with pytest.raises(BdauditError, match="No space left"):
        run_unlearn(config(tiny_model, tmp_path / "out", steps=1, component="text-encoder"))
    assert os.listdir(tmp_path) == []


def test_an_interrupt_is_reported_and_leaves_nothing_behind(tiny_model: Path, tmp_path: Path) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if stage.startswith("unlearning") and done == 2:
            raise KeyboardInterrupt

    report = run_unlearn(config(tiny_model, tmp_path / "out", component="unet"), stop)
    assert (report.status, report.exit.code) == ("interrupted", ExitCode.INTERRUPTED)
    assert report.exit.reason == "stopped by the user; nothing was written"
    assert report.before
    assert not report.after
    assert os.listdir(tmp_path) == []


def test_an_interrupt_before_anything_was_measured_is_reported_too(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bdaudit.unlearn.run.build_stage", stop)
    report = run_unlearn(config(tiny_model, tmp_path / "out"))
    assert (report.status, report.exit.code, report.before) == ("interrupted", ExitCode.INTERRUPTED, {})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("renamed", [False, True])
def test_an_interrupt_of_the_writing_says_what_is_there(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renamed: bool
) -> None:
    rename = os.rename

    def stop(source: Path, target: Path) -> None:
        if renamed:
            rename(source, target)
        raise KeyboardInterrupt

    monkeypatch.setattr("bdaudit.pipeline.save.os.rename", stop)
    out = tmp_path / "out"
    report = run_unlearn(config(tiny_model, out, steps=1, component="text-encoder"))
    assert (report.status, report.exit.code) == ("interrupted", ExitCode.INTERRUPTED)
    assert report.checks
    assert (report.out, "nothing was written" in report.exit.reason) == ((str(out), False) if renamed else ("", True))
    assert os.listdir(tmp_path) == (["out"] if renamed else [])
    assert {f.path: f.sha256 for f in report.written} == (hashes(out) if renamed else {})
