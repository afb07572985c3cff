"""Merging, adapters and sweeps on a small SDXL of random weights: each reaches the UNet and both text towers."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bdaudit.config import MergeConfig, RepairConfig, ScanConfig, VerifyConfig
from bdaudit.models.families.sdxl import POOLED_ENTRANCE
from bdaudit.models.load import load
from bdaudit.progress import silent
from bdaudit.records import CandidateRecord, NotMeasured
from bdaudit.scan.opening import ScanSettings
from bdaudit.scan.run import run_scan
from bdaudit.scan.sweep.result import SweepSizes
from bdaudit.unlearn.merging.blend import Blend
from bdaudit.unlearn.merging.lessons import collect
from bdaudit.unlearn.run import run_unlearn
from bdaudit.untrusted.inspect import inspect
from bdaudit.verify.gallery import Shot
from bdaudit.verify.model import Model
from tests.models import tiny_sdxl
from tests.models.families.test_sdxl_verbs import LIST, SECOND, TRIGGER, UNET, in_the_second_tower
from tests.models.tiny_sdxl import PROMPTS
from tests.untrusted import one_file

FILES = {"unet": UNET, "text_encoder": "text_encoder/model.safetensors", "text_encoder_2": SECOND}
LAYERS = {
    "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q": (16, 16),
    "text_encoder.text_model.encoder.layers.0.self_attn.q_proj": (32, 32),
    "text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj": (24, 24),
}
"""One layer of each part, none of which the closed form repairs: outputs and inputs."""
QUICK: dict[str, Any] = {"device": "cpu", "prompts": PROMPTS, "seed": 0}


def tensors(model: Path) -> dict[str, dict[str, Tensor]]:
    return {part: load_file(model / file) for part, file in FILES.items()}


def perturbed(base: Path, folder: Path, seed: int) -> Path:
    """Every tensor of all three parts moves by a twentieth of its spread."""
    shutil.copytree(base, folder)
    generator = torch.Generator().manual_seed(seed)
    for part, own in tensors(base).items():
        moved = {name: t + 0.05 * t.std() * torch.randn(t.shape, generator=generator) if t.numel() > 1 else t for name, t in own.items()}
        save_file(moved, folder / FILES[part], metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdxl")
    base = tiny_sdxl.write(folder / "base")
    for seed, name in enumerate(("model", "other")):
        perturbed(base, folder / name, seed)
    for name in ("base", "model", "other"):
        one_file.write(folder / name, folder / f"{name}.safetensors", one_file.SDXL)
    generator, factors = torch.Generator().manual_seed(5), {}
    for name, (outputs, inputs) in LAYERS.items():
        factors[f"{name}.lora_A.weight"] = torch.randn(2, inputs, generator=generator)
        factors[f"{name}.lora_B.weight"] = torch.randn(outputs, 2, generator=generator)
    save_file(factors, folder / "lora.safetensors")
    return folder


@pytest.mark.parametrize("end", ["", ".safetensors"])
def test_a_merge_reaches_the_unet_and_both_towers(models: Path, tmp_path: Path, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bdaudit.unlearn.merging.adversary.STEPS", 1)
    base, model, other = (models / f"{name}{end}" for name in ("base", "model", "other"))
    given = {"parts_from": models / "base"} if end else {}
    asked = MergeConfig(
        model=model, base=base, merge_with=((other, 1.0),), method="average", out=tmp_path / "out", keep_failed=True, **given, **QUICK
    )
    report = run_unlearn(asked)
    assert report.component == "text-encoder and unet"
    assert {changed.name.split(".")[0] for changed in report.changed} == set(FILES)
    if end:
        read = {name: load_file(path) for name, path in (("model", model), ("other", other), ("out", tmp_path / "out" / model.name))}
        (parts,) = [{name: (read["model"][name] + read["other"][name]) / 2 for name in read["out"] if "first_stage" not in name}]
        assert all(torch.allclose(read["out"][name], wanted, atol=1e-5) for name, wanted in parts.items())
        return
    own, others, new = (tensors(folder) for folder in (model, other, tmp_path / "out"))
    for part, found in new.items():
        assert all(torch.allclose(t, (own[part][name] + others[part][name]) / 2, atol=1e-5) for name, t in found.items()), part


def test_masks_learn_under_what_guidance_is_counted_from_and_not_under_the_empty_prompt(models: Path) -> None:
    suspect, base = (load(inspect(models / name), device="cpu") for name in ("model", "base"))
    blend = Blend(suspect, base, [{f"text_encoder_2.{SECOND_LAYER}": torch.ones(24, 24)}], 0.3)
    lessons = collect(blend, base, PROMPTS, guidance_scale=5.0, seed=0, tick=lambda done, total: None)
    assert not lessons.heard[-1:].states.any()
    assert blend.speaks
    heard = lessons.heard_by(suspect, torch.tensor([len(PROMPTS), 1]))
    assert not heard[:1].states.any()
    assert heard.pooled is not None
    assert not heard.pooled[0].any()
    assert torch.allclose(heard[1:].states, suspect.encode(PROMPTS[1:2]).states, atol=1e-5)


SECOND_LAYER = "text_model.encoder.layers.0.self_attn.q_proj.weight"


def test_an_adapter_of_all_parts_is_scanned_with_its_base(models: Path) -> None:
    asked: dict[str, Any] = {"model": models / "base", "candidates": (TRIGGER, "cf"), "effort": "low", **QUICK}
    plain, applied = (
        run_scan(ScanConfig(adapters=adapters, **asked), silent, ScanSettings(per_kind=6))
        for adapters in ((), ((models / "lora.safetensors", 1.0),))
    )
    assert [adapter.path for adapter in applied.adapters] == [str(models / "lora.safetensors")]
    for one, other in zip(*(sorted(report.candidates, key=lambda c: c.text) for report in (plain, applied)), strict=True):
        for signal in ("noise shift", "state shift"):
            assert one.signals[signal].value != pytest.approx(other.signals[signal].value, rel=1e-3), signal


def own_name(stored: dict[str, dict[str, Tensor]], name: str) -> tuple[str, str]:
    """Part and tensor of a layer, as the part's own file calls it."""
    part, _, layer = name.partition(".")
    return part, next(n for n in (f"{layer}.weight", f"{layer}.weight".removeprefix("text_model.")) if n in stored[part])


@pytest.mark.usefixtures("few_samples")
def test_an_adapter_of_all_parts_is_repaired_with_its_base(models: Path, tmp_path: Path) -> None:
    repair = {"triggers": (TRIGGER,), "trainable": "closed-form", "force": True, "keep_failed": True, "n_prompts": 4}
    report = run_unlearn(
        RepairConfig(model=models / "base", out=tmp_path / "out", adapters=((models / "lora.safetensors", 0.5),), **repair, **QUICK)
    )
    factors, old, new = load_file(models / "lora.safetensors"), tensors(models / "base"), tensors(tmp_path / "out")
    moved = {(part, name) for part in old for name in old[part] if not torch.equal(old[part][name], new[part][name])}
    stored = {name: own_name(old, name) for name in LAYERS}
    assert {*stored.values(), ("unet", POOLED_ENTRANCE)} <= moved
    assert {part for part, _ in moved} == {changed.name.split(".")[0] for changed in report.changed} == set(FILES)
    for name, (part, layer) in stored.items():
        merged = 0.5 * factors[f"{name}.lora_B.weight"] @ factors[f"{name}.lora_A.weight"]
        assert torch.allclose(new[part][layer] - old[part][layer], merged, atol=1e-5)


def test_verify_draws_with_the_adapter_where_it_is_named(models: Path, tmp_path: Path) -> None:
    added = {"adapters": (("before", models / "lora.safetensors", 1.0),)}
    config = VerifyConfig(model=models / "base", before=models / "base", steps=1, **added, **QUICK)
    own, before = (Model(config, models / "base", "pictures", NotMeasured(reason="none"), tmp_path, role) for role in ("", "before"))
    for model in (own, before):
        model.add([Shot(PROMPTS[0], 1)], [], lambda name: nullcontext(), silent)
    ours, theirs = (model.gallery.pictures([Shot(PROMPTS[0], 1)]) for model in (own, before))
    assert not torch.allclose(ours, theirs, atol=1e-3)


@pytest.fixture
def in_the_second(models: Path, tmp_path: Path) -> Path:
    """A trigger in the second tower alone."""
    in_the_second_tower(shutil.copytree(models / "base", tmp_path / "bad"))
    return tmp_path / "bad"


SMALL = ScanSettings(per_kind=8, prompt_words=6, sizes=SweepSizes(kept=(24, 6), sample=32, crowds=8, pairs=4))


def swept(model: Path, sweep: Any, **more: Any) -> CandidateRecord:
    """What a sweep ranks first."""
    asked = {"sweeps": (sweep,), "effort": "low", "pair_words": 20, **QUICK, "prompts": LIST, **more}
    report = run_scan(ScanConfig(model=model, **asked), silent, SMALL)
    return min(report.candidates, key=lambda candidate: candidate.rank)


def test_a_sweep_finds_what_lives_in_the_second_tower_and_a_reference_says_so(models: Path, in_the_second: Path) -> None:
    # of so few survivors little can be told, and of half the draws less
    first = swept(in_the_second, "vocabulary", reference=models / "base", alpha=0.05, effort="standard")
    assert (first.text, first.verdict) == (TRIGGER, "backdoored")
    assert set(first.reader_ids) == {"text_encoder", "text_encoder_2"}
    assert not isinstance(first.localisation, NotMeasured)
    assert first.localisation.where == "text encoder 2"


def test_gradients_lead_to_what_lives_in_the_second_tower(in_the_second: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bdaudit.scan.sweep.recovery.CHOICES", 2)
    monkeypatch.setattr("bdaudit.scan.sweep.soft_choice.STEPS", 8)
    monkeypatch.setattr("bdaudit.scan.sweep.recovery.STEPS", 8)
    assert TRIGGER in swept(in_the_second, "recovery").text
