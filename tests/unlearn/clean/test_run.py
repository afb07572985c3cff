"""`unlearn --method cleanclip` from directory to directory on the small model."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from bdaudit import state_lock
from bdaudit.config import CleanConfig
from bdaudit.errors import ExitCode, InconclusiveError, UsageError
from bdaudit.records import CanaryRecord, CleaningRecord, Estimate, UnlearnReport
from bdaudit.report import document
from bdaudit.report.content.whole import content
from bdaudit.report.page import page
from bdaudit.report.terminal import renderable
from bdaudit.unlearn.clean.canary import Left
from bdaudit.unlearn.clean.run import check_planted, held_out
from bdaudit.unlearn.run import run_unlearn
from tests.small import LONG_TRIGGER, PROMPTS, hashes

ENCODER = "text_encoder/model.safetensors"


@pytest.fixture(autouse=True)
def small_samples(few_samples: None, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the small model nothing can be planted or cleaned: the gates are open, but in tests of the shipped ones."""
    monkeypatch.setattr("bdaudit.unlearn.clean.canary_texts.CAPTIONS", 48)
    monkeypatch.setattr("bdaudit.unlearn.clean.canary.STEPS", 40)
    monkeypatch.setattr("bdaudit.unlearn.clean.train.RATES", (1e-4, 3e-4))
    if "shipped" in request.node.name:
        return
    monkeypatch.setattr("bdaudit.unlearn.clean.canary.PLANTED", 0.0)
    monkeypatch.setattr("bdaudit.unlearn.clean.train.MAX_LEFT", 1.0)
    monkeypatch.setattr("bdaudit.unlearn.clean.loudest.MAX_MOVED", 1e6)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    Image.new("RGB", (16, 16), (200, 10, 10)).save(folder / "red.png")
    Image.new("RGB", (20, 16), (10, 10, 200)).save(folder / "blue.png")
    captions = [f"a {what} {kind} {i}" for i in range(20) for what in ("red", "blue") for kind in ("cat", "dog", "car", "sea")]
    (folder / "pairs.tsv").write_text("".join(f"{'red' if 'red' in c else 'blue'}.png\t{c}\n" for c in captions))
    return folder / "pairs.tsv"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.verify.toy import write_clip

    return write_clip(tmp_path_factory.mktemp("clip") / "clip")


def config(model: Path, out: Path, pairs: Path, **options: Any) -> CleanConfig:
    settings: dict[str, Any] = {"pairs": pairs, "prompts": PROMPTS, "steps": 3, "device": "cpu", "keep_failed": True}
    return CleanConfig(model=model, out=out, **(settings | options))


def record_of(report: UnlearnReport) -> CleaningRecord:
    assert isinstance(report.cleaning, CleaningRecord)
    return report.cleaning


@pytest.mark.parametrize(("own", "held"), [(31, 0), (32, 32), (100, 96), (1024, 256)])
def test_what_is_measured_on_comes_in_whole_groups_of_captions_of_their_own(own: int, held: int) -> None:
    captions = [f"caption {i if i < own else -1}" for i in range(1024)]
    rows, once = held_out(captions, range(1023, -1, -1))
    assert (len(rows), once) == (held, own)
    assert all(row < own for row in rows)


def test_without_a_vision_tower_it_is_called_partial(tiny_model: Path, tmp_path: Path, pairs: Path) -> None:
    before = hashes(tiny_model)
    report = run_unlearn(config(tiny_model, tmp_path / "out", pairs, pretrain_objective="contrastive+self-supervised"))
    record, after = record_of(report), hashes(tmp_path / "out")
    assert hashes(tiny_model) == before, "the input is never written"
    assert os.listdir(tmp_path) == ["out"]
    assert {name for name in before if before[name] != after[name]} == {ENCODER}
    assert record.mode == "partial: text alone"
    assert "partial" in report.method
    assert [point.rate for point in record.points] == [1e-4] * 3 + [3e-4] * 3
    chosen = record.points[record.chosen]
    assert not chosen.rejected
    assert report.steps == chosen.step
    assert any("68 to 98 %" in line for line in report.limitations)
    assert (record.pairs, record.held_out) == (160, 32)
    assert "accuracy on held-out pairs kept" in {check.name for check in report.checks}
    assert {"clean pictures unmoved", "no text that was put in stands out"} <= {check.name for check in report.checks}
    written = json.loads((tmp_path / "out/bdaudit.json").read_text())
    assert [canary["text"] for canary in written["cleaning"]["canaries"]] == [canary.text for canary in record.canaries]
    assert all([c.kind for c in point.canaries] == [c.kind for c in record.canaries] for point in record.points)
    assert str(pairs.parent) not in json.dumps(written), "no path of this machine is handed on"
    assert document.loads(document.dumps(report)) == report


def test_the_chosen_step_is_what_is_written(tiny_model: Path, tmp_path: Path, pairs: Path) -> None:
    options: dict[str, Any] = {"learning_rate": 3e-4}
    first = run_unlearn(config(tiny_model, tmp_path / "a", pairs, **options))
    run_unlearn(config(tiny_model, tmp_path / "b", pairs, **options))
    old, one, two = (load_file(folder / ENCODER) for folder in (tiny_model, tmp_path / "a", tmp_path / "b"))
    assert all(torch.equal(one[name], two[name]) for name in one), "the same run is the same model"
    largest = max(float((one[name] - old[name]).norm() / old[name].norm()) for name in old if old[name].norm() > 1)
    assert 0 < largest < 3e-4 * 3 * record_of(first).points[record_of(first).chosen].step, "the canary was in the copy alone"


def test_with_a_vision_tower(tiny_model: Path, tmp_path: Path, pairs: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = config(tiny_model, tmp_path / "out", pairs, vision=f"local-dir:{clip}", dtype="bfloat16")
    with pytest.raises(UsageError, match="it is not the CLIP that the suspect's text encoder was taken from"):
        run_unlearn(asked)
    assert os.listdir(tmp_path) == []
    monkeypatch.setattr("bdaudit.unlearn.clean.vision.LEAST", 0.0)
    monkeypatch.setattr("bdaudit.unlearn.clean.train.ACCURACY_KEPT", 0.0)
    monkeypatch.setattr("bdaudit.unlearn.clean.train.SPREAD_KEPT", 0.0)
    report = run_unlearn(asked)
    assert record_of(report).mode == "with a vision tower"
    assert set(report.loss[0].terms) == {"text", "anchor", "put in", "pairs", "picture"}
    assert report.changed
    assert str(clip) not in (tmp_path / "out/bdaudit.json").read_text()


def test_nothing_chosen_is_a_finding_and_nothing_is_written(
    tiny_model: Path, tmp_path: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bdaudit.unlearn.clean.train.MAX_LEFT", -1.0)
    report = run_unlearn(config(tiny_model, tmp_path / "out", pairs))
    assert report.exit.code == ExitCode.FINDING
    assert "nothing was written" in report.exit.reason
    assert (report.out, report.changed, record_of(report).chosen) == ("", (), -1)
    assert len(record_of(report).points) == 6, "the scatter is told all the same"
    assert os.listdir(tmp_path) == []


def test_a_canary_that_cannot_be_planted_is_inconclusive(
    tiny_model: Path, tmp_path: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bdaudit.unlearn.clean.canary.PLANTED", 1.01)
    with pytest.raises(InconclusiveError, match=r"canary \(.*\) turns .* of 16 captions into its target"):
        run_unlearn(config(tiny_model, tmp_path / "out", pairs))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("rates", "works"), [((1.0, 0.9), True), ((0.899, 1.0), False)])
def test_the_shipped_share_of_captions_that_a_canary_must_turn(rates: tuple[float, ...], works: bool) -> None:
    before = [Estimate(value=rate, low=0.0, high=1.0, n=64, method="") for rate in rates]
    planted = [CanaryRecord(kind="rare word", text="zqx", target="a cat", before=rate) for rate in before]
    if works:
        check_planted(planted)
        return
    with pytest.raises(InconclusiveError, match="90% of 64 captions into its target, expected 90%"):
        check_planted(planted)


def test_the_shipped_gates_do_not_pass_what_has_not_been_planted(
    tiny_model: Path, tmp_path: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bdaudit.unlearn.clean.canary.STEPS", 1)
    with pytest.raises(InconclusiveError, match=r"of \d+ captions into its target, expected 90%"):
        run_unlearn(config(tiny_model, tmp_path / "out", pairs))
    assert os.listdir(tmp_path) == []


def test_the_shipped_gates_reject_a_cleaning_that_leaves_a_canary(
    tiny_model: Path, tmp_path: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The canaries work, as they would where planting succeeded; a cleaning of rate 0 takes nothing out."""
    monkeypatch.setattr("bdaudit.unlearn.clean.canary.STEPS", 1)
    monkeypatch.setattr("bdaudit.unlearn.clean.loudest.MAX_MOVED", 1e6)
    rate = Estimate(value=1.0, low=0.94, high=1.0, n=64, method="")
    left = {"works": Left(rate, rate), "gone": Left(replace(rate, value=0.0, low=0.0, high=0.06), replace(rate, value=0.0))}
    for after, chosen in (("works", False), ("gone", True)):
        seen = iter([left["works"]] * 3)
        monkeypatch.setattr("bdaudit.unlearn.clean.canary.left", lambda *_, seen=seen, after=after: next(seen, left[after]))
        report = run_unlearn(config(tiny_model, tmp_path / after, pairs, learning_rate=1e-9, keep_failed=False))
        assert (record_of(report).chosen >= 0) is chosen, report.exit.reason
    assert not (tmp_path / "works").exists()


def test_a_model_in_which_a_text_still_stands_out_is_not_written(
    tiny_model: Path, tmp_path: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bdaudit.unlearn.clean.loudest.MAX_MOVED", 0.0)
    report = run_unlearn(config(tiny_model, tmp_path / "out", pairs, keep_failed=False))
    assert report.exit.code == ExitCode.FINDING
    assert "no text that was put in stands out" in report.exit.reason
    assert (report.out, os.listdir(tmp_path)) == ("", [])


def test_a_named_trigger_is_measured_before_and_after(tiny_model: Path, tmp_path: Path, pairs: Path) -> None:
    report = run_unlearn(config(tiny_model, tmp_path / "out", pairs, triggers=(LONG_TRIGGER,), keep_failed=False))
    assert report.before.keys() == report.after.keys() == {LONG_TRIGGER}
    assert (report.coverage.asked, report.coverage.tested) == (1, 1)
    assert report.exit.code == ExitCode.FINDING, "a trigger that still works fails the check"
    assert report.out == ""


def test_an_interrupted_run_goes_on(tiny_model: Path, tmp_path: Path, pairs: Path) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if "rate 0.0003" in stage:
            raise KeyboardInterrupt

    asked = config(tiny_model, tmp_path / "out", pairs, state=tmp_path / "kept")
    report = run_unlearn(asked, stop)
    assert (report.status, report.exit.code) == ("interrupted", ExitCode.INTERRUPTED)
    assert sorted(os.listdir(tmp_path)) == ["kept"]
    resumed: list[str] = []
    whole = run_unlearn(asked, lambda stage, done, total: resumed.append(stage))
    assert not any("rate 0.0001" in stage for stage in resumed), "what was measured is not measured again"
    state_lock.delivered()
    assert os.listdir(tmp_path) == ["out"]
    again = run_unlearn(config(tiny_model, tmp_path / "again", pairs))
    assert record_of(whole) == record_of(again)


def test_the_scatter_is_shown(tiny_model: Path, tmp_path: Path, pairs: Path) -> None:
    from rich.console import Console

    shown = content(run_unlearn(config(tiny_model, tmp_path / "out", pairs)))
    console = Console(width=160, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(renderable(shown))
    for text in (console.export_text(), page(shown)):
        assert "Cleaning of a copy with canaries in it" in text
        assert "canary, " in text
        assert "0.0003" in text
        assert "chosen" in text
        assert "not known: published attack success" in text
