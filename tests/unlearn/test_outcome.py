"""How a finished or stopped repair ends, what is written, and what is handed on; no model is opened."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bdaudit.config import RepairConfig
from bdaudit.errors import ExitCode
from bdaudit.measure.effect import Effect, Reading
from bdaudit.records import Check, Estimate, NotMeasured, UnlearnReport
from bdaudit.unlearn import outcome
from bdaudit.unlearn.outcome import PRIVATE, Outcome, changed, effect_estimate, ended, interrupted, provenance, with_digests

VALUE = Estimate(value=0.5, low=0.4, high=0.6, n=9, method="t")
PASSED, FAILED = (Check(name=name, status=name, value=VALUE, bound="b") for name in ("passed", "failed"))  # type: ignore[arg-type]
OPEN = Check(name="open", status="not measured", value=NotMeasured(reason="too few"), bound="b")
UNDECIDED = Check(name="undecided", status="undecided", value=VALUE, bound="b")


def run(*checks: Check, **settings: Any) -> Outcome:
    config = RepairConfig(**{"model": Path("m"), "triggers": ("cf", "zq"), "out": Path("out"), **settings})
    return Outcome(config, SimpleNamespace(), SimpleNamespace(), checks=list(checks), component="unet")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("checks", "code", "said"),
    [
        ((), ExitCode.PASS, "done; wrote out"),
        ((PASSED,), ExitCode.PASS, "done; wrote out"),
        ((PASSED, FAILED), ExitCode.FINDING, "the model fails its own check (failed); nothing was written; --keep-failed writes it"),
        ((PASSED, OPEN), ExitCode.INCONCLUSIVE, "the check of the model is undecided (open): neither passed nor failed; nothing was"),
        ((UNDECIDED,), ExitCode.INCONCLUSIVE, "the check of the model is undecided (undecided)"),
        ((OPEN, FAILED), ExitCode.FINDING, "the model fails its own check (failed)"),
    ],
    ids=lambda value: " ".join(check.name for check in value) if isinstance(value, tuple) else None,
)
def test_a_repair_passes_where_every_check_does(checks: tuple[Check, ...], code: ExitCode, said: str) -> None:
    finished = ended(run(*checks), "the model", "done")
    assert finished.code == code
    assert finished.reason.startswith(said)
    assert run(*checks).writes is (code == ExitCode.PASS)
    kept = run(*checks, keep_failed=True, patch=Path("p.safetensors"))
    assert kept.writes
    assert ended(kept, "the model", "done").code == code
    place = "wrote" if code == ExitCode.PASS else "written all the same to"
    assert f"{place} out and p.safetensors" in ended(kept, "the model", "done").reason


def test_each_check_is_counted_once() -> None:
    finished = run(PASSED, FAILED, OPEN, UNDECIDED)
    assert (finished.failed, finished.undecided) == (["failed"], ["open", "undecided"])


def effect(value: float, null: tuple[float, ...] = tuple(map(float, range(21)))) -> Effect:
    reading = Reading(value, null)
    return Effect("cf", tuple(map(str, null)), reading, reading, reading)


def test_an_effect_stands_beside_the_middle_nine_tenths_of_harmless_texts() -> None:
    told = effect_estimate(effect(30.0, tuple(map(float, reversed(range(21))))))
    assert (told.value, told.low, told.high, told.n) == (30.0, 1.0, 19.0, 21)


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ((effect(30.0), effect(30.0)), "2 triggers removed from the unet; wrote out"),
        ((effect(30.0), replace(effect(1.0), text="zq")), "1 trigger removed from the unet ('zq' did no more than harmless texts before)"),
    ],
)
def test_a_trigger_that_did_nothing_is_not_counted_as_removed(
    monkeypatch: pytest.MonkeyPatch, before: tuple[Effect, ...], said: str
) -> None:
    monkeypatch.setattr(outcome, "report", lambda run, status, ended: ended)
    finished = run(PASSED)
    finished.before = list(before)
    assert outcome.decided(finished).reason.startswith(said)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("checks", "code", "said"),
    [
        ((PASSED,), ExitCode.INCONCLUSIVE, "'cf' and 'zq' did no more than harmless texts before, so that nothing shows that anything was"),
        ((FAILED,), ExitCode.FINDING, "the repaired model fails its own check"),
        ((UNDECIDED,), ExitCode.INCONCLUSIVE, "the check of the repaired model is undecided"),
    ],
)
def test_a_forced_repair_of_what_did_nothing_is_no_pass(
    monkeypatch: pytest.MonkeyPatch, checks: tuple[Check, ...], code: ExitCode, said: str
) -> None:
    monkeypatch.setattr(outcome, "report", lambda run, status, ended: ended)
    finished = run(*checks, force=True)
    finished.before = [effect(1.0), replace(effect(1.0), text="zq")]
    ending: Any = outcome.decided(finished)
    assert ending.code == code
    assert ending.reason.startswith(said)
    assert (": repaired" in ending.reason or "wrote out" in ending.reason) == (checks == (PASSED,)), "what was written is said"


def test_what_is_merged_in_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcome, "report", lambda run, status, ended: ended)
    finished = run(PASSED)
    finished.adapters = (SimpleNamespace(files=(SimpleNamespace(path="style.safetensors"),)),)  # type: ignore[assignment]
    assert "; style.safetensors merged in; wrote out" in outcome.decided(finished).reason  # type: ignore[attr-defined]


def test_how_far_a_tensor_moved_is_relative_to_what_it_was() -> None:
    before = {"unet.a": torch.tensor([3.0, 4.0]), "unet.b": torch.zeros(2)}
    told = changed({"unet": {"a": torch.tensor([0.0, 0.5]), "b": torch.zeros(2)}}, lambda name, difference: before[name])
    assert [(each.name, each.relative_change) for each in told] == [("unet.a", pytest.approx(0.1)), ("unet.b", 0.0)]


def test_differences_of_a_repair_and_of_its_adapters_are_added(monkeypatch: pytest.MonkeyPatch) -> None:
    finished = run(PASSED)
    assert outcome._differences(finished) == {}
    repaired = {"unet.a": torch.ones(2), "unet.b": torch.ones(2)}
    finished.patch = SimpleNamespace(differences=lambda: repaired)  # type: ignore[assignment]
    monkeypatch.setattr(outcome, "merged", lambda adapters: {("unet", "a"): torch.full((2,), 2.0), ("vae", "c"): torch.ones(1)})
    found = outcome._differences(finished)
    assert {part: {name: float(value[0]) for name, value in named.items()} for part, named in found.items()} == {
        "unet": {"a": 3.0, "b": 1.0}, "vae": {"c": 1.0},
    }  # fmt: skip
    finished.settled = {"unet": {"a": torch.zeros(2)}}
    assert outcome._differences(finished) is finished.settled, "what the files' rounding made of it"


@pytest.mark.parametrize("adapters", [(), (SimpleNamespace(),)])
def test_what_a_tensor_was_is_told_by_the_patch_alone_where_nothing_else_was_added(adapters: Any) -> None:
    finished = run(PASSED)
    finished.patch = SimpleNamespace(originals={"unet.a": torch.full((2,), 5.0)})  # type: ignore[assignment]
    finished.suspect = SimpleNamespace(modules={"unet": SimpleNamespace(get_parameter=lambda name: torch.full((2,), 9.0))})  # type: ignore[assignment]
    finished.adapters = adapters
    before = outcome._before(finished, "unet.a", torch.full((2,), 1.0))
    assert before.tolist() == ([8.0, 8.0] if adapters else [5.0, 5.0])


# --- interrupted ------------------------------------------------------------------------------


@pytest.mark.parametrize("out", ["none", "empty", "full"])
@pytest.mark.parametrize("patch", [False, True])
def test_a_stopped_run_says_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unlearn_report: UnlearnReport, out: str, patch: bool
) -> None:
    places = {"out": tmp_path / "out", "patch": tmp_path / "p.safetensors"}
    if out != "none":
        places["out"].mkdir()
    if out == "full":
        (places["out"] / "x").touch()
    if patch:
        places["patch"].touch()
    stopped = run(**places)
    stopped.finished = unlearn_report
    monkeypatch.setattr(outcome, "with_digests", lambda report, inspection, out: replace(report, out=str(out)))
    found = interrupted(stopped)
    there = [str(places["out"])] * (out == "full") + [str(places["patch"])] * patch
    said = f"stopped by the user; the result is whole in {' and '.join(there)}" if there else "stopped by the user; nothing was written"
    assert (found.exit.code, found.status, found.exit.reason) == (130, "interrupted", said)
    assert (found.out == str(places["out"])) is (out == "full")


# --- what is handed on ------------------------------------------------------------------------


def test_no_path_of_this_machine_is_handed_on(unlearn_report: UnlearnReport) -> None:
    config = {name: f"/home/me/{name}" for name in PRIVATE} | {"seed": 7}
    assert provenance(replace(unlearn_report, config=config))["config"] == {"seed": 7}


@pytest.mark.parametrize("allowed", [True, False, "yes", None])
def test_the_next_command_grades_the_result_beside_what_it_was_made_of(
    monkeypatch: pytest.MonkeyPatch, unlearn_report: UnlearnReport, allowed: Any
) -> None:
    monkeypatch.setattr(outcome, "result_of", lambda inspection, out: SimpleNamespace(written_in=lambda out: ()))
    inspection: Any = SimpleNamespace(pieces=(), part_files={}, config=None, trusted=())
    report = replace(unlearn_report, config={"model": "m", "allow_pickle": allowed, "size": [64, 32]}, adapters=())
    command = with_digests(report, inspection, Path("out")).next_command
    assert "--before m" in command
    assert "--size 64x32" in command
    assert ("--allow-pickle" in command) is (allowed is True)
    assert not {"--device", "--dtype", "--prompts"} & set(command.split())
    chosen = {"device": "cuda:1", "dtype": "bfloat16", "prompts_file": "my prompts.txt"}
    alike = with_digests(replace(report, config=report.config | chosen), inspection, Path("out")).next_command
    assert alike == f"{command} --prompts 'my prompts.txt' --device cuda:1 --dtype bfloat16"
    unset = dict(zip(chosen, ("auto", "auto", "not set"), strict=True))
    assert with_digests(replace(report, config=report.config | unset), inspection, Path("out")).next_command == command
    sized = replace(report, config={"model": "m", "size": "64x32"})
    assert "--size" not in with_digests(sized, inspection, Path("out")).next_command
    assert "--lora" not in command
    listed: Any = replace(report, config=report.config | {"adapters": [["style.safetensors", 0.5]]})
    assert "--lora" not in with_digests(listed, inspection, Path("out")).next_command, "the run had applied none"
    merged: Any = replace(listed, adapters=(SimpleNamespace(),))
    assert "--lora before:style.safetensors:0.5" in with_digests(merged, inspection, Path("out")).next_command


@pytest.mark.parametrize(
    ("trained", "strength", "words"),
    [
        ("closed-form", 0.5, "keys and values in closed form, strength 0.5"),
        ("cross-attention", 0.0, "SKD-CAG with preservation, cross-attention"),
        ("", 0.0, "not finished"),
    ],
)
def test_the_method_in_words(trained: str, strength: float, words: str) -> None:
    assert outcome._method(trained, strength) == words
