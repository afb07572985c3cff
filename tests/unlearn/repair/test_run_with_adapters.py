"""`unlearn --lora`: what is measured, repaired and written is the model with the adapters in it, in every tensor that they touch."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bdaudit.config import ApplyConfig, RepairConfig
from bdaudit.errors import UsageError
from bdaudit.models.lora import merged, read_adapter
from bdaudit.models.save import write_model
from bdaudit.models.suspect import Suspect
from bdaudit.records import FileRecord, ScanReport
from bdaudit.report.document import dumps
from bdaudit.unlearn.from_report import check_adapters
from bdaudit.unlearn.run import run_unlearn
from bdaudit.untrusted.inspect import inspect
from tests.small import LONG_TRIGGER, PROMPTS, hashes

LAYER = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2"
TEXT = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
FILES = {"unet": "unet/diffusion_pytorch_model.safetensors", "text_encoder": "text_encoder/model.safetensors"}

pytestmark = pytest.mark.usefixtures("few_samples")


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    """On a layer that the repair changes, on one that it does not, and on the text encoder."""
    generator, tensors = torch.Generator().manual_seed(5), {}
    for name in (f"{LAYER}.to_k", f"{LAYER}.to_q", TEXT):
        tensors[f"{name}.lora_A.weight"] = 0.3 * torch.randn(2, 8, generator=generator)
        tensors[f"{name}.lora_B.weight"] = 0.3 * torch.randn(8, 2, generator=generator)
    (tmp_path / "in").mkdir()
    save_file(tensors, tmp_path / "in/style.safetensors")
    return tmp_path / "in/style.safetensors"


def config(model: Path, out: Path | None, **options: Any) -> RepairConfig:
    settings: dict[str, Any] = {
        "triggers": (LONG_TRIGGER,), "prompts": PROMPTS, "device": "cpu", "keep_failed": True, "trainable": "closed-form",
    }  # fmt: skip
    return RepairConfig(model=model, out=out, **(settings | options))


def tensors(model: Path) -> dict[str, Tensor]:
    return {f"{part}.{name}": tensor for part, file in FILES.items() for name, tensor in load_file(model / file).items()}


def test_it_is_the_repair_of_the_merged_model(tiny_model: Path, tiny_suspect: Suspect, lora: Path, tmp_path: Path) -> None:
    differences: dict[str, dict[str, Tensor]] = {}
    for (component, name), delta in merged([read_adapter(lora, 0.5, tiny_suspect)]).items():
        differences.setdefault(component, {})[name] = delta
    write_model(inspect(tiny_model), tmp_path / "merged", differences, {})
    wanted = run_unlearn(config(tmp_path / "merged", tmp_path / "wanted"))

    before = hashes(tiny_model)
    report = run_unlearn(config(tiny_model, tmp_path / "out", patch=tmp_path / "patch.safetensors", adapters=((lora, 0.5),)))
    assert hashes(tiny_model) == before
    old, new, reference = (tensors(folder) for folder in (tiny_model, tmp_path / "out", tmp_path / "wanted"))
    assert all(torch.allclose(new[name], reference[name], atol=1e-6) for name in new)
    assert report.after[LONG_TRIGGER].value == pytest.approx(wanted.after[LONG_TRIGGER].value, rel=1e-3)
    moved = {name.replace("text_encoder.text_model.", "text_encoder.") for name in old if not torch.equal(old[name], new[name])}
    assert moved == {changed.name for changed in report.changed}
    assert {f"{LAYER}.to_q.weight", f"{TEXT.replace('text_model.', '')}.weight"} <= moved

    again = run_unlearn(ApplyConfig(model=tiny_model, out=tmp_path / "again", from_patch=tmp_path / "patch.safetensors"))
    assert again.exit.code == 0, "the patch is relative to the model alone, and holds the adapter"
    assert all(torch.allclose(new[name], tensor, atol=1e-6) for name, tensor in tensors(tmp_path / "again").items())


def test_the_record_says_which_adapter_is_in_it(tiny_model: Path, lora: Path, tmp_path: Path) -> None:
    report = run_unlearn(config(tiny_model, tmp_path / "out", adapters=((lora, 0.5),)))
    ((scale, (file,)),) = [(adapter.scale, adapter.files) for adapter in report.adapters]
    assert (scale, file.path, len(file.sha256)) == (0.5, str(lora), 64)
    record = json.loads((tmp_path / "out/bdaudit.json").read_text())
    assert record["adapters"] == [{"scale": 0.5, "files": [{"name": "style.safetensors", "sha256": file.sha256}]}]
    assert str(tmp_path) not in json.dumps(record), "no path of this machine is handed on"


def test_an_interrupted_run_is_not_resumed_with_another_adapter(tiny_model: Path, lora: Path, tmp_path: Path) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if stage.startswith("keys and values"):
            raise KeyboardInterrupt

    asked = config(tiny_model, tmp_path / "out", state=tmp_path / "state", adapters=((lora, 0.5),))
    assert run_unlearn(asked, stop).status == "interrupted"
    for other in (replace(asked, adapters=()), replace(asked, adapters=((lora, 1.0),))):
        with pytest.raises(UsageError, match="--state"):
            run_unlearn(other)
    save_file(
        {name: -tensor for name, tensor in load_file(lora).items()}
        | {"unet.conv_in.lora_A.weight": torch.ones(1, 4, 3, 3), "unet.conv_in.lora_B.weight": torch.ones(8, 1, 1, 1)},
        lora,
    )
    with pytest.raises(UsageError, match="--state"):
        run_unlearn(asked)


def test_a_report_must_be_of_the_same_adapters(tiny_suspect: Suspect, scan_report: ScanReport, lora: Path, tmp_path: Path) -> None:
    adapter = read_adapter(lora, 0.5, tiny_suspect)
    (file,) = adapter.files
    record = FileRecord(path=file.path, bytes=file.bytes, sha256=file.sha256)
    of = replace(scan_report, adapters=(record,), config={**scan_report.config, "adapters": [[str(lora), 0.5]]})
    for report, given, fits in (
        (scan_report, [], True), (of, [adapter], True), (of, [], False), (scan_report, [adapter], False),
        (of, [replace(adapter, scale=1.0)], False), (replace(of, config={"adapters": 5}), [adapter], False),
    ):  # fmt: skip
        (tmp_path / "scan.json").write_text(dumps(report), encoding="utf-8")
        if fits:
            check_adapters(tmp_path / "scan.json", given)
            continue
        with pytest.raises(UsageError, match="name the same with --lora"):
            check_adapters(tmp_path / "scan.json", given)
