"""`unlearn --merge-with` from directories to a directory on the tiny model."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bdaudit.config import MERGING, ApplyConfig, MergeConfig
from bdaudit.errors import ExitCode, InconclusiveError, UsageError
from bdaudit.models.suspect import Suspect
from bdaudit.records import Check, Estimate, NotMeasured
from bdaudit.report.document import dumps, loads
from bdaudit.unlearn.merging.contributors import open_model
from bdaudit.unlearn.run import run_unlearn
from tests.small import LONG_TRIGGER, PROMPTS, hashes
from tests.unlearn.merging.fine_tunes import FILES, fine_tune


@pytest.fixture(autouse=True)
def small_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bdaudit.unlearn.merging.defence.ROUNDS", 2)
    monkeypatch.setattr("bdaudit.unlearn.triggers.DRAWS", 8)


@pytest.fixture
def models(tiny_model: Path, tmp_path: Path) -> Path:
    """``model`` and ``other``, fine-tunes of the tiny model."""
    fine_tune(tiny_model, tmp_path / "model", 1, chosen=lambda name: "attn2" in name)
    fine_tune(tiny_model, tmp_path / "other", 2)
    return tmp_path


def config(base: Path, models: Path, **options: Any) -> MergeConfig:
    settings: dict[str, Any] = {"prompts": PROMPTS, "device": "cpu", "keep_failed": True, "base": base, "out": models / "out"}
    return MergeConfig(model=models / "model", **(settings | {"merge_with": ((models / "other", 1.0),)} | options))


def test_the_passes_are_those_of_the_model_and_of_the_base(tiny_model: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Suspect] = []

    def kept(*arguments: Any) -> Suspect:
        opened.append(open_model(*arguments))
        return opened[-1]

    monkeypatch.setattr("bdaudit.unlearn.merging.run.open_model", kept)
    report = run_unlearn(config(tiny_model, models, method="average"))
    assert len(opened) == 2
    assert all(suspect.forward_passes > 0 for suspect in opened)
    assert report.forward_passes == sum(suspect.forward_passes for suspect in opened)


def test_the_average_is_written_and_reported(tiny_model: Path, models: Path) -> None:
    before = [hashes(models / name) for name in ("model", "other")]
    report = run_unlearn(config(tiny_model, models, method="average"))
    assert [hashes(models / name) for name in ("model", "other")] == before, "no input is ever written"
    after = hashes(models / "out")
    assert {name for name in before[0] if before[0][name] != after[name]} == {FILES["unet"]}
    folders = (tiny_model, *(models / name for name in ("model", "other", "out")))
    base, own, other, new = (load_file(folder / FILES["unet"]) for folder in folders)
    for name, tensor in new.items():
        assert torch.allclose(tensor, base[name] + (own[name] - base[name] + other[name] - base[name]) / 2, atol=1e-5), name
    assert {f.path: f.sha256 for f in report.written}.items() <= after.items()
    assert report.component == "unet"
    assert [record.path for record in report.merged] == [str(models / "model"), str(models / "other")]
    assert [record.kept for record in report.merged] == pytest.approx([0.5, 0.5], abs=0.1)
    assert all(isinstance(record.safety_mask, NotMeasured) for record in report.merged)
    provenance = json.loads((models / "out/bdaudit.json").read_text())
    assert [entry["sha256"] for entry in provenance["merged"]] == [record.sha256 for record in report.merged]
    assert str(models) not in json.dumps(provenance), "no path of this machine is handed on"


def test_masked_with_a_trigger_and_a_patch_that_is_the_same_merge(tiny_model: Path, models: Path) -> None:
    asked = config(tiny_model, models, triggers=(LONG_TRIGGER,), patch=models / "merge.safetensors")
    report = run_unlearn(asked)
    assert report.method == "merging by dam"
    assert report.steps == 2
    assert loads(dumps(report)) == report
    first, second = report.merged
    assert isinstance(first.safety_mask, float)
    assert 0 < first.safety_mask < 1
    assert first.most_masked[0].startswith("unet.")
    assert isinstance(second.quality, Estimate)
    assert isinstance(second.soft_token, Estimate)
    assert set(first.triggers) == set(second.triggers) == {LONG_TRIGGER}
    assert "carr" in first.backdoor
    assert report.before == first.triggers
    assert {check.name.split(" ")[0] for check in report.checks} == {"clean", "one-step"}
    run_unlearn(ApplyConfig(model=models / "model", from_patch=models / "merge.safetensors", out=models / "again"))
    assert hashes(models / "again")[FILES["unet"]] == hashes(models / "out")[FILES["unet"]]


@pytest.mark.parametrize("method", [m for m in MERGING if m not in ("average", "dam")])
def test_the_other_methods_run(tiny_model: Path, models: Path, method: Any) -> None:
    report = run_unlearn(config(tiny_model, models, method=method))
    assert report.method == f"merging by {method}"
    assert report.written


def test_a_merge_that_fails_its_check_is_not_written(tiny_model: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    value = Estimate(value=2.0, low=1.5, high=2.5, n=4, method="t 95 %")
    failed = Check(name="clean predictions against the contributors'", status="failed", value=value, bound="≤ 1")
    monkeypatch.setattr("bdaudit.unlearn.merging.findings.nearness_check", lambda merged, base: failed)
    report = run_unlearn(config(tiny_model, models, method="average", keep_failed=False))
    assert report.exit.code == ExitCode.FINDING
    assert "nothing was written" in report.exit.reason
    assert sorted(os.listdir(models)) == ["model", "other"]


def test_what_is_no_fine_tune_of_the_base_is_refused(tiny_model: Path, models: Path) -> None:
    fine_tune(tiny_model, models / "far", 3, size=3.0)
    with pytest.raises(UsageError, match="away from the base's"):
        run_unlearn(config(tiny_model, models, merge_with=((models / "far", 1.0),)))
    with pytest.raises(UsageError, match="away from the base's"):
        run_unlearn(config(models / "far", models))
    assert not (models / "out").exists()


def test_the_base_itself_adds_nothing(tiny_model: Path, models: Path) -> None:
    with pytest.raises(InconclusiveError, match="is the base itself"):
        run_unlearn(config(tiny_model, models, merge_with=((tiny_model, 1.0),)))


def test_a_trigger_that_encodes_to_nothing(tiny_model: Path, models: Path) -> None:
    with pytest.raises(InconclusiveError, match="encodes to no token"):
        run_unlearn(config(tiny_model, models, triggers=(" ",)))


@pytest.mark.parametrize(("stage", "has"), [("merging: masks", False), ("checking", True)])
def test_an_interrupt_is_reported_and_leaves_nothing_behind(tiny_model: Path, models: Path, stage: str, has: bool) -> None:
    def stop(name: str, done: int, total: int) -> None:
        if name == stage and done:
            raise KeyboardInterrupt

    report = run_unlearn(config(tiny_model, models), stop)
    assert (report.status, report.exit.code) == ("interrupted", ExitCode.INTERRUPTED)
    assert report.exit.reason == "stopped by the user; nothing was written"
    assert bool(report.merged) is has
    assert sorted(os.listdir(models)) == ["model", "other"]


def test_the_same_seed_gives_the_same_weights(tiny_model: Path, models: Path) -> None:
    written: Callable[[str], str] = lambda name: hashes(models / name)[FILES["unet"]]  # noqa: E731
    for name, seed in (("first", 1), ("again", 1), ("other-seed", 2)):
        run_unlearn(config(tiny_model, models, out=models / name, seed=seed))
    assert written("first") == written("again") != written("other-seed")
