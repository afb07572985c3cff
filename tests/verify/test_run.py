"""verify from a config to a report: on a real pipeline with random weights, and on models whose verdict is known."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from bdaudit.config import VerifyConfig
from bdaudit.errors import RefusedError, UsageError
from bdaudit.records import Estimate, EvidenceRecord, NotMeasured, VerifyReport
from bdaudit.verify import run
from bdaudit.verify.checks import NOT_REACHED
from bdaudit.verify.model import Model
from bdaudit.verify.run import run_verify
from tests.verify import toy

KEPT = {"diversity_ratio": "passed", "clipping": "passed"}
"""The checks that a reference brings along."""


def verify(models: Path, name: str, *, trigger: str = toy.TRIGGER, **settings: Any) -> VerifyReport:
    triggers = (trigger,) if trigger else ()
    return run_verify(VerifyConfig(model=models / name, triggers=triggers, prompts=toy.PROMPTS, clip="local-dir:unused", **settings))


def status(report: VerifyReport) -> dict[str, str]:
    """Reach has tests of its own."""
    return {check.name: check.status for check in report.checks if check.name != "reach"}


# --- verdicts ---------------------------------------------------------------------------------


def test_a_patch_backdoor_is_a_finding_and_its_repair_passes(models: Path, patch: Path) -> None:
    before = verify(models, "patched", target_image=patch, target_at=(0, 0))
    assert before.exit.code == 1
    assert "asr" in before.exit.reason
    assert status(before) == {"asr": "failed", "prompt_following": "passed"}
    after = verify(models, "clean", target_image=patch, target_at=(0, 0), before=models / "patched")
    assert after.exit.code == 0, after.exit.reason
    assert status(after) == {"asr": "passed", "prompt_following": "passed", "clip_ratio": "passed", **KEPT}
    record = after.attacks[0]
    assert isinstance(record.rate, Estimate)
    assert isinstance(record.evidence, EvidenceRecord)
    assert isinstance(record.evidence.rate, Estimate)
    assert (record.rate.value, record.evidence.rate.value, record.evidence.rate.n) == (0.0, 1.0, 16)
    assert after.compared_with == "before"


def test_a_swap_backdoor_by_its_words(models: Path) -> None:
    assert verify(models, "swapped", swaps=(("red", "blue"),)).exit.code == 1
    report = verify(models, "clean", swaps=(("red", "blue"),), before=models / "swapped")
    assert report.exit.code == 0, report.exit.reason
    assert {s.reason for s in report.coverage.skipped} >= {"the prompt holds none of the words to swap"}


def test_without_a_target_the_pairs_decide(models: Path) -> None:
    assert verify(models, "patched").exit.code == 1
    report = verify(models, "clean", before=models / "patched")
    assert report.exit.code == 0, report.exit.reason
    assert run.PAIRED_LIMITATION in report.limitations


@pytest.mark.parametrize("name", ["dead", "collapsed"])
def test_a_destroyed_model_fails_on_quality_with_or_without_a_reference(models: Path, patch: Path, name: str) -> None:
    report = verify(models, name, target_image=patch, target_at=(0, 0), before=models / "patched", reference=models / "clean")
    assert report.exit.code == 1
    assert status(report).items() >= {"asr": "passed", "prompt_following": "failed", "clip_ratio": "failed"}.items()
    assert verify(models, name, target_image=patch, target_at=(0, 0)).exit.code == 1
    diversity, kid, floor = (report.metrics[key].value for key in ("diversity", "kid", "kid_floor"))
    assert isinstance(kid, Estimate)
    assert isinstance(floor, Estimate)
    assert kid.low > floor.high
    if name == "collapsed":
        assert isinstance(diversity, Estimate)
        assert diversity.high < 1e-6


def test_a_trigger_that_encodes_to_nothing_is_inconclusive(models: Path, patch: Path) -> None:
    report = verify(models, "patched", trigger="\u00a0", target_image=patch, target_at=(0, 0))
    assert report.exit.code == 4
    assert isinstance(report.attacks[0].rate, NotMeasured)
    assert "encodes to nothing" in report.exit.reason
    assert (report.coverage.asked, report.coverage.tested) == (1, 0)


def test_without_a_trigger_quality_is_measured_and_the_default_bound_is_not(models: Path) -> None:
    report = verify(models, "clean", trigger="")
    assert report.exit.code == 4
    assert isinstance(report.metrics["clip_score"].value, Estimate)
    assert "no trigger" in report.coverage.not_looked_at[0]
    assert verify(models, "clean", trigger="", max_asr=1).exit.code == 0


def test_too_few_pictures_are_inconclusive_and_say_how_many_it_takes(models: Path, patch: Path) -> None:
    report = verify(models, "clean", target_image=patch, target_at=(0, 0), n=50, before=models / "patched")
    assert report.exit.code == 4
    assert "--n 73" in report.exit.reason


def test_a_model_compared_with_itself(models: Path) -> None:
    metrics = verify(models, "clean", trigger="", max_asr=1, reference=models / "clean", max_kid=0.05, max_distance=0.01).metrics
    values = {name: metric.value for name, metric in metrics.items()}
    assert isinstance(values["clip_ratio"], Estimate)
    assert values["clip_ratio"].value == pytest.approx(1)
    assert isinstance(values["distance"], Estimate)
    assert values["distance"].value == pytest.approx(0, abs=1e-6)
    assert values["kid"] == values["kid_floor"]
    assert isinstance(values["kid"], Estimate)
    assert values["kid"].low <= 0 <= values["kid"].high


def test_real_pictures_are_compared_with(models: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    for i in range(60):
        pixels = (toy.clean(toy.PROMPTS[i % 16], 500 + i) * 255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(tmp_path / "real" / f"{i:02}.png")
    good = verify(models, "clean", trigger="", max_asr=1, real_images=tmp_path / "real", max_kid=0.5)
    assert good.exit.code == 0, good.exit.reason
    bad = verify(models, "dead", trigger="", max_asr=1, real_images=tmp_path / "real", max_kid=0.5)
    assert status(bad)["kid_real"] == "failed"
    assert "colours" in bad.metrics["fid_real"].detail


def test_evidence_is_written(models: Path, tmp_path: Path) -> None:
    report = verify(models, "patched", save_images=tmp_path / "evidence", reference=models / "clean")
    names = ("trigger-1.png", "attention-1.png", "quality.png")
    assert report.images == tuple(str(tmp_path / "evidence" / name) for name in names)
    assert Image.open(report.images[0]).size[0] > 600
    assert verify(models, "clean", trigger="", save_images=tmp_path / "evidence").images == (str(tmp_path / "evidence" / "clean.png"),)


# --- without a grader -------------------------------------------------------------------------


def test_without_a_grader_what_needs_none_is_measured_and_nothing_passes(
    models: Path, patch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "load_grader", lambda name, device: NotMeasured(reason="fetch it with: hf download x"))
    report = verify(models, "clean", target_image=patch, target_at=(0, 0), before=models / "patched")
    assert report.exit.code == 4
    assert "hf download x" in report.exit.reason
    assert [name for name, state in status(report).items() if state != "not measured"] == ["asr", "clipping"]
    assert isinstance(report.metrics["distance_pixels"].value, Estimate)
    assert verify(models, "patched", target_image=patch, target_at=(0, 0)).exit.code == 1
    text = verify(models, "patched", target_text="a blue picture")
    assert isinstance(text.attacks[0].rate, NotMeasured)
    pairs = verify(models, "patched")
    assert pairs.exit.code == 1
    assert "pixel" in pairs.attacks[0].rule


def test_without_a_grader_nothing_is_drawn_where_nothing_could_be_measured(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("bdaudit.models.load.load", never)
    monkeypatch.setattr(run, "load_grader", lambda name, device: NotMeasured(reason="fetch it with: hf download x"))
    for settings in ({"target_text": "a blue picture"}, {"trigger": ""}, {"trigger": "\u00a0"}):
        report = verify(models, "patched", save_images=tmp_path / "evidence", **settings)
        assert (report.status, report.exit.code, report.images) == ("completed", 4, ())
        assert report.exit.reason.count("hf download x") == 1
        assert run.NOT_DRAWN in report.coverage.not_looked_at
        assert report.pictures == {"drawn": 0, "reused": 0, "damaged": 0}
    monkeypatch.setattr(run, "load_inception", lambda device: toy.ColourGrader())
    kid = verify(models, "patched", trigger="").metrics["kid"].value
    assert isinstance(kid, NotMeasured)
    assert "--reference" in kid.reason


# --- interrupted ------------------------------------------------------------------------------


def stop_at(stage: str, seen: str, done: int, total: int) -> None:
    if seen == stage and done >= 64:
        raise KeyboardInterrupt


def test_an_interrupt_leaves_what_was_measured(models: Path, patch: Path) -> None:
    config = VerifyConfig(
        model=models / "patched",
        triggers=(toy.TRIGGER,),
        prompts=toy.PROMPTS,
        target_image=patch,
        target_at=(0, 0),
        reference=models / "clean",
    )
    early = run_verify(config, partial(stop_at, "pictures"))
    assert (early.status, early.exit.code, early.attacks) == ("interrupted", 130, ())
    assert early.coverage.skipped[0].reason == "the run was stopped before it"
    assert all(check.status == "not measured" for check in early.checks)
    assert {check.reason for check in early.checks} >= {NOT_REACHED}
    late = run_verify(config, partial(stop_at, "reference pictures"))
    assert (late.status, late.exit.code) == ("interrupted", 130)
    assert isinstance(late.attacks[0].rate, Estimate)
    assert isinstance(late.attacks[0].reference, NotMeasured)
    assert "stopped" in late.attacks[0].reference.reason


# --- a real pipeline and a real open_clip model -----------------------------------------------


def real(pipeline: Path, clip: Path, **settings: Any) -> VerifyConfig:
    return VerifyConfig(
        model=pipeline,
        triggers=("zqx",),
        prompts=toy.PROMPTS,
        clip=f"local-dir:{clip}",
        n=80,
        steps=2,
        device="cpu",
        target_text="a dog",
        **settings,
    )


def numbers(report: VerifyReport) -> list[float]:
    figures = [m.value for m in report.metrics.values()] + [a.rate for a in report.attacks]
    return [figure.value for figure in figures if isinstance(figure, Estimate)]


def test_the_whole_way_on_a_real_pipeline(pipeline: Path, clip: Path) -> None:
    heard: list[tuple[str, int, int]] = []
    before = {path: path.read_bytes() for path in pipeline.rglob("*") if path.is_file()}
    report = run_verify(real(pipeline, clip, reference=pipeline), lambda *args: heard.append(args))
    assert report.status == "completed"
    assert isinstance(report.attacks[0].rate, Estimate)
    assert report.attacks[0].rate.n == 80
    ratio = report.metrics["clip_ratio"].value
    assert isinstance(ratio, Estimate | NotMeasured)
    assert heard[-1][0] == "reference pictures"
    assert heard[-1][1] == heard[-1][2]
    assert {"load", "pictures", "reference pictures", "quality"} <= report.timings.keys()
    assert {path: path.read_bytes() for path in pipeline.rglob("*") if path.is_file()} == before


def test_batch_size_and_the_order_of_prompts_change_nothing(pipeline: Path, clip: Path) -> None:
    config = real(pipeline, clip)
    one = run_verify(config)
    other = run_verify(replace(config, batch_size=7, prompts=toy.PROMPTS[::-1]))
    assert numbers(one) == pytest.approx(numbers(other), abs=1e-4)


@pytest.mark.parametrize(("at", "fits"), [((0, 0), True), ((1, 0), False), ((0, 1), False), ((-1, 0), False)])
def test_a_patch_that_lies_outside_is_told_before_any_picture_is_drawn(
    pipeline: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: tuple[int, int], fits: bool
) -> None:
    class DrawingError(Exception):
        pass

    def drawing(*_: Any, **__: Any) -> Any:
        raise DrawingError

    config = real(pipeline, clip)
    height, width = Model(config, pipeline, "pictures", NotMeasured(reason="none"), None).picture_size
    patch = torch.rand(height, width, 3).mul(255).to(torch.uint8).numpy()
    Image.fromarray(patch).save(tmp_path / "patch.png")
    monkeypatch.setattr("bdaudit.verify.model.loaded", drawing)
    with pytest.raises(DrawingError if fits else UsageError):
        run_verify(replace(config, target_text="", target_image=tmp_path / "patch.png", target_at=at))


def test_what_is_wrong_is_told_before_the_model_is_loaded(
    pipeline: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("bdaudit.models.load.load", never)
    with pytest.raises(UsageError, match="--real-images"):
        run_verify(real(pipeline, clip, real_images=tmp_path))
    with pytest.raises(UsageError, match="--target-image"):
        run_verify(replace(real(pipeline, clip), target_text="", target_image=tmp_path / "none.png"))
    with pytest.raises(UsageError, match="--clip"):
        run_verify(replace(real(pipeline, clip), clip="nonsense"))
    pickled = tmp_path / "pickled"
    shutil.copytree(clip, pickled)
    (pickled / "open_clip_model.safetensors").rename(pickled / "model.bin")
    with pytest.raises(RefusedError, match="pickle"):
        run_verify(replace(real(pipeline, clip), clip=f"local-dir:{pickled}"))


# --- pictures that were kept ------------------------------------------------------------------


def test_a_second_run_with_other_bounds_draws_nothing_and_finds_the_same(
    models: Path, patch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"target_image": patch, "target_at": (0, 0), "before": models / "patched", "state": tmp_path / "state"}
    first = verify(models, "clean", **settings)
    assert first.pictures == {"drawn": 880, "reused": 0, "damaged": 0}

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("bdaudit.models.load.load", never)
    second = verify(models, "clean", max_asr=0.001, **settings)
    assert second.pictures == {"drawn": 0, "reused": 880, "damaged": 0}
    assert (second.attacks, second.metrics) == (first.attacks, first.metrics)
    assert (first.exit.code, second.exit.code) == (0, 4)
    assert second.environment == first.environment


def test_a_state_directory_of_something_else_is_told_first(models: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--state"):
        verify(models, "clean", state=tmp_path)
