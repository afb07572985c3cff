"""A check's pictures drawn by workers are those that the run itself would draw, of the weights that it checks."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bdaudit.config import RepairConfig
from bdaudit.errors import BdauditError
from bdaudit.measure.final_latents import final_latents
from bdaudit.models.load import load
from bdaudit.models.suspect import Suspect
from bdaudit.report.document import values
from bdaudit.unlearn.repair.bench import BEFORE, NOW, Bench, LatentsTask
from bdaudit.unlearn.run import run_unlearn
from bdaudit.unlearn.weights import Patch
from bdaudit.untrusted.inspect import inspect
from bdaudit.untrusted.open_file import sha256
from bdaudit.workers.arrays import Array
from bdaudit.workers.wire import packed, unpacked
from tests.small import LONG_TRIGGER, PROMPTS, hashes
from tests.workers.here import Here, in_process

TEXTS, SEEDS = ("a dog", "a small boat"), (1, 2)
LAYER = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v"


@pytest.fixture
def carrier(monkeypatch: pytest.MonkeyPatch) -> Here:
    monkeypatch.setattr("bdaudit.unlearn.repair.check.TOGETHER", 2)
    return in_process(monkeypatch)


def told(config: RepairConfig) -> tuple[dict[str, Any], dict[str, str]]:
    """A report, without what may differ, and the hashes of what was written."""
    report = values(run_unlearn(config))
    for name in ("created_at", "timings", "out", "next_command"):
        del report[name]
    report["config"] |= {"workers": "", "out": "", "state": ""}
    report["exit"]["reason"] = report["exit"]["reason"].replace(str(config.out), "OUT")
    assert config.out
    return report, hashes(config.out)


@pytest.mark.usefixtures("few_samples")
@pytest.mark.parametrize("component", ["unet", "text-encoder"])
def test_a_repair_with_workers_killed_or_not_writes_the_same(carrier: Here, tiny_model: Path, tmp_path: Path, component: Any) -> None:
    save_file({f"{LAYER}.lora_A.weight": torch.ones(1, 8), f"{LAYER}.lora_B.weight": torch.ones(8, 1)}, tmp_path / "lora.safetensors")
    config = RepairConfig(
        model=tiny_model, out=tmp_path / "alone", triggers=(LONG_TRIGGER,), prompts=PROMPTS, steps=2, device="cpu", keep_failed=True,
        component=component, force=True, adapters=((tmp_path / "lora.safetensors", 0.5),),
    )  # fmt: skip
    alone = told(config)
    assert carrier.given == []
    assert told(replace(config, out=tmp_path / "three", workers="3", state=tmp_path / "state")) == alone
    assert len(carrier.given) > 10
    befores = [json.loads(data)[0]["before"] for data in carrier.given]
    assert True in befores
    assert False in befores
    carrier.kill = lambda number: number % 3 == 0
    report, written = told(replace(config, out=tmp_path / "killed", workers="2"))
    assert any("was lost" in note for note in report["coverage"]["notes"])
    report["coverage"]["notes"] = alone[0]["coverage"]["notes"]
    assert (report, written) == alone


@pytest.fixture
def weights(fresh_suspect: Suspect, tmp_path: Path) -> tuple[Patch, Path]:
    """A patched model, and the file that tells of it."""
    patch = Patch(fresh_suspect, "closed-form")
    patch.put({name: torch.full(tensor.shape, 0.05) for name, tensor in patch.originals.items()})
    now = {f"{NOW}{name}": p.data.clone() for name, p in patch.parameters.items()}
    save_file(now | {f"{BEFORE}{name}": t for name, t in patch.originals.items()}, tmp_path / "weights.safetensors")
    return patch, tmp_path / "weights.safetensors"


def asked(path: Path, **more: Any) -> Any:
    task = LatentsTask(texts=TEXTS, seeds=SEEDS, weights=path, sha256=sha256(path, "weights"), before=False)
    return json.loads(packed(replace(task, **more)))


def test_the_weights_are_exchanged_and_put_back(tiny_model: Path, weights: tuple[Patch, Path], fresh_suspect: Suspect) -> None:
    patch, path = weights
    bench = Bench(load(inspect(tiny_model), device="cpu"), {})
    for before in (False, True, False):
        with patch.teacher() if before else nullcontext():
            wanted = final_latents(fresh_suspect, TEXTS, SEEDS)
        found = unpacked(packed(bench.done(asked(path, before=before))), Array, "x").tensor((2, None))
        assert torch.equal(found, wanted)
    one = next(iter(patch.originals))
    save_file({f"{NOW}{one}": patch.originals[one] * 2}, path)
    patch.revert()
    patch.parameters[one].data.mul_(2)
    assert torch.equal(bench.done(asked(path)).tensor((2, None)), final_latents(fresh_suspect, TEXTS, SEEDS)), "of all others the opened"
    assert bench.passes > 0


@pytest.mark.parametrize("what", ["another file", "another shape", "another type", "no tensor of it", "no number", "no file"])
def test_weights_of_something_else_are_told(what: str, weights: tuple[Patch, Path], fresh_suspect: Suspect) -> None:
    _, path = weights
    held = load_file(path)
    name = next(iter(held))
    task = asked(path)
    edits = {
        "another file": {name: held[name] + 1}, "another shape": {name: held[name].flatten()}, "another type": {name: held[name].half()},
        "no tensor of it": {"now/vae.x": torch.ones(1)}, "no number": {name: held[name] * float("nan")},
    }  # fmt: skip
    if what == "no file":
        path.unlink()
    else:
        save_file(held | edits[what], path)
        task = task if what == "another file" else asked(path)
    said = {"another file": "must see the same file", "no file": "weights.safetensors"}.get(what, "is no tensor of this model")
    with pytest.raises(BdauditError, match=said):
        Bench(fresh_suspect, {}).done(task)
    with pytest.raises(BdauditError, match="does not fit"):
        Bench(fresh_suspect, {}).done({"texts": ["a"]})
