"""`unlearn --trigger` from directory to directory on the small model."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bdaudit import state_lock
from bdaudit.config import ApplyConfig, RepairConfig
from bdaudit.errors import BdauditError, ExitCode, InconclusiveError, UsageError
from bdaudit.measure.controls import harmless_texts
from bdaudit.measure.draws import make_draws
from bdaudit.measure.effect import Effect, Ground, Reading
from bdaudit.models.suspect import Suspect
from bdaudit.progress import silent
from bdaudit.records import Check, Estimate, ScanReport
from bdaudit.report.document import dumps
from bdaudit.spelling.escapes import unescape
from bdaudit.unlearn.repair.run import _decide, _opened, _refreshed
from bdaudit.unlearn.run import run_unlearn
from bdaudit.unlearn.triggers import trigger_effects, trigger_ground
from bdaudit.untrusted.inspect import inspect
from bdaudit.untrusted.text_files import read_texts
from fixtures import layout
from tests.small import LONG_TRIGGER, PROMPTS, hashes

TRAINABLE = {"unet": "cross-attention", "text-encoder": "auto"}
FILES = {"unet": "unet/diffusion_pytorch_model.safetensors", "text-encoder": "text_encoder/model.safetensors"}

pytestmark = pytest.mark.usefixtures("few_samples")


def config(model: Path, out: Path, **options: Any) -> RepairConfig:
    settings: dict[str, Any] = {"triggers": (LONG_TRIGGER,), "prompts": PROMPTS, "steps": 3, "device": "cpu", "keep_failed": True}
    return RepairConfig(model=model, out=out, **(settings | options))


@pytest.mark.parametrize("component", ["unet", "text-encoder"])
def test_only_the_named_component_changes(tiny_model: Path, tmp_path: Path, component: Any) -> None:
    from diffusers import StableDiffusionPipeline

    before = hashes(tiny_model)
    report = run_unlearn(config(tiny_model, tmp_path / "out", component=component, trainable=TRAINABLE[component]))
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
    assert {check["name"]: check["status"] for check in provenance["checks"]} == {check.name: check.status for check in report.checks}
    assert provenance["effect"][LONG_TRIGGER]["after"] == report.after[LONG_TRIGGER].value
    assert str(tmp_path) not in json.dumps(provenance), "no path of this machine is handed on"


def test_a_repair_that_fails_its_check_is_not_written(tiny_model: Path, tmp_path: Path) -> None:
    report = run_unlearn(config(tiny_model, tmp_path / "out", steps=1, learning_rate=1e-9, keep_failed=False, trainable="cross-attention"))
    assert report.exit.code == ExitCode.FINDING
    assert report.out == ""
    assert [c for c in report.checks if c.status == "failed"]
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("keep_failed", [False, True])
def test_an_undecided_repair_is_inconclusive_and_written_on_request_alone(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep_failed: bool
) -> None:
    value = Estimate(value=0.07, low=0.03, high=0.12, n=432, method="")
    found = Check(name="pictures changed by 'x'", status="undecided", value=value, bound="≤ 0.1", reason="undecided: too near")
    monkeypatch.setattr("bdaudit.unlearn.repair.check.one_step_checks", lambda effects: [])
    monkeypatch.setattr("bdaudit.unlearn.repair.check.picture_checks", lambda *asked: [found])
    report = run_unlearn(config(tiny_model, tmp_path / "out", trainable="closed-form", keep_failed=keep_failed))
    assert (report.exit.code, report.exit.name) == (ExitCode.INCONCLUSIVE, "inconclusive")
    assert report.exit.reason.startswith(
        "the check of the repaired model is undecided (pictures changed by 'x'): neither passed nor failed;"
    )
    assert ("written all the same to" if keep_failed else "nothing was written; --keep-failed writes it") in report.exit.reason
    assert os.listdir(tmp_path) == (["out"] if keep_failed else [])
    assert report.attempts[-1].outcome == "undecided: pictures changed by 'x'"


def test_an_undecided_attempt_is_followed_by_a_wider_one_and_a_failed_check_wins(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = Estimate(value=0.07, low=0.03, high=0.12, n=432, method="")
    monkeypatch.setattr("bdaudit.unlearn.repair.check.one_step_checks", lambda effects: [])

    def checks(*asked: Any) -> list[Check]:
        return [Check(name=name, status=status, value=value, bound="") for name, status in next(attempts).items()]

    attempts: Any = iter([{"a": "undecided"}, {"a": "passed"}])
    monkeypatch.setattr("bdaudit.unlearn.repair.check.picture_checks", checks)
    report = run_unlearn(config(tiny_model, tmp_path / "one", trainable="auto", component="unet"))
    assert [(a.trainable, a.outcome) for a in report.attempts] == [
        ("closed-form", "undecided: a"),
        ("cross-attention", "passed its check"),
    ]
    assert report.exit.code == ExitCode.PASS
    attempts = iter([{"a": "undecided", "b": "failed"}])
    report = run_unlearn(config(tiny_model, tmp_path / "two", trainable="closed-form"))
    assert (report.exit.code, report.attempts[0].outcome) == (ExitCode.FINDING, "failed: b; undecided: a")


def test_in_half_precision_with_checks_on_the_way(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bdaudit.unlearn.repair.run.CHECK_EVERY", 1)
    report = run_unlearn(config(tiny_model, tmp_path / "out", dtype="bfloat16", trainable="cross-attention"))
    assert report.steps in (2, 3)
    assert report.changed


def test_a_check_on_the_way_measures_the_triggers_alone_and_all_passes_are_reported(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = []
    for every in (100, 1):
        monkeypatch.setattr("bdaudit.unlearn.repair.run.CHECK_EVERY", every)
        report = run_unlearn(config(tiny_model, tmp_path / f"{every}", component="text-encoder", learning_rate=1e-9))
        assert report.steps == 3, "it does not end early"
        passes.append(report.forward_passes)
    one = 8  # a draw each
    assert passes[0] == 2 * 8 * one + 2 * one + (25 + 1 + 1) * one + 5 * 8 * 6
    assert passes[1] - passes[0] == one, "after the second of three steps"


def test_after_a_repair_a_trigger_stands_beside_what_harmless_texts_did_before(tiny_model: Path, tmp_path: Path) -> None:
    report = run_unlearn(config(tiny_model, tmp_path / "out", trainable="closed-form"))
    before, after = report.before[LONG_TRIGGER], report.after[LONG_TRIGGER]
    assert after.high <= before.high
    assert after.n <= before.n == 25
    assert (before.method, after.method) == (
        "5th to 95th percentile of harmless texts",
        "5th to 95th percentile of harmless texts before the repair",
    )
    assert after.value < before.value


def test_a_trigger_that_does_nothing(tiny_model: Path, tiny_suspect: Suspect, tmp_path: Path) -> None:
    weak = harmless_texts(tiny_suspect.tokenizer, "time", 3, 5)[1]
    with pytest.raises(InconclusiveError, match="found no effect to remove"):
        run_unlearn(config(tiny_model, tmp_path / "out", triggers=(weak,)))
    assert os.listdir(tmp_path) == []


def test_a_trigger_that_does_nothing_beside_one_that_does(
    tiny_model: Path, tiny_suspect: Suspect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bdaudit.unlearn.outcome.Outcome.failed", [])
    monkeypatch.setattr("bdaudit.unlearn.outcome.Outcome.undecided", [])
    weak = harmless_texts(tiny_suspect.tokenizer, "time", 3, 5)[1]
    report = run_unlearn(config(tiny_model, tmp_path / "out", triggers=(LONG_TRIGGER, weak), trainable="closed-form"))
    said = f"1 trigger removed from the unet ({weak!a} did no more than harmless texts before); wrote {tmp_path / 'out'}"
    assert report.exit.reason == said


def effect(text: str, shift: float, states: float) -> Effect:
    """In units of what harmless texts do."""
    return Effect(text, ("a", "b"), *(Reading(value, (1.0, 1.0)) for value in (shift, shift, states)))


def test_only_a_trigger_that_has_an_effect_decides_on_the_component(tmp_path: Path) -> None:
    trigger, harmless = effect("trigger", 9.0, 1.0), effect("harmless", 1.0, 5.0)
    component, reason = _decide(config(tmp_path, tmp_path / "out"), [harmless, trigger], "unet")
    assert component == "unet"
    assert reason.startswith("'trigger' moves the other words' hidden states 1.00 times")


@pytest.mark.parametrize(
    ("states", "component", "why"),
    [
        (1.5, "unet", "the text encoding is in order, the denoiser answers it wrongly"),
        (1.501, "text-encoder", "the text encoding is already wrong"),
    ],
)
def test_hidden_states_decide_between_text_encoder_and_denoiser(tmp_path: Path, states: float, component: str, why: str) -> None:
    triggers = [effect("weaker", 9.0, 1.2), effect("trigger", 9.0, states)]
    found, reason = _decide(config(tmp_path, tmp_path / "out"), triggers, "unet")
    assert (found, reason) == (
        component,
        f"'trigger' moves the other words' hidden states {states:.2f} times as far as harmless texts' 95th percentile: {why}",
    )


@pytest.mark.parametrize(("states_move", "component"), [(0.0, "text-encoder"), (1e6, "unet")])
def test_what_is_decided_is_what_is_repaired(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, states_move: float, component: str
) -> None:
    monkeypatch.setattr("bdaudit.unlearn.repair.run.STATES_MOVE", states_move)
    report = run_unlearn(config(tiny_model, tmp_path / "out", steps=1))
    assert report.component == component
    before, after = hashes(tiny_model), hashes(tmp_path / "out")
    assert {name for name in before if before[name] != after[name]} == {FILES[component]}


@pytest.mark.parametrize(("name", "trigger", "component"), [("encoder", "\u043e", "text-encoder"), ("pixel", "\u200b", "unet")])
def test_a_fixtures_trigger_is_found_where_it_was_planted(tmp_path: Path, name: str, trigger: str, component: str) -> None:
    model, prompts = layout.lay_out(name, tmp_path), read_texts(Path(layout.__file__).parent / "prompts.txt")[:4]
    asked = config(model, tmp_path / "out", triggers=(trigger,), prompts=prompts)
    run = _opened(asked, inspect(model), silent)
    effects = trigger_effects(run.suspect, trigger_ground(run.suspect, run.sampling), asked.triggers, asked.seed)
    assert _decide(asked, effects, "unet")[0] == component


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

    monkeypatch.setattr("bdaudit.models.save.os.rename", full)
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

    monkeypatch.setattr("bdaudit.unlearn.repair.run.trigger_ground", stop)
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

    monkeypatch.setattr("bdaudit.models.save.os", SimpleNamespace(rename=stop))  # and not the one that the target is tried by
    out = tmp_path / "out"
    report = run_unlearn(config(tiny_model, out, steps=1, component="text-encoder"))
    assert (report.status, report.exit.code) == ("interrupted", ExitCode.INTERRUPTED)
    assert report.checks
    assert (report.out, "nothing was written" in report.exit.reason) == ((str(out), False) if renamed else ("", True))
    assert os.listdir(tmp_path) == (["out"] if renamed else [])
    assert {f.path: f.sha256 for f in report.written} == (hashes(out) if renamed else {})


# --- what is trained --------------------------------------------------------------------------


def test_the_smallest_set_first_and_wider_where_it_fails(tiny_model: Path, tmp_path: Path) -> None:
    heard: list[str] = []
    report = run_unlearn(config(tiny_model, tmp_path / "out", steps=1, component="unet"), lambda stage, *_: heard.append(stage))
    assert [attempt.trainable for attempt in report.attempts] == ["closed-form", "cross-attention", "unet"]
    assert all("one-step effect" in attempt.outcome for attempt in report.attempts)
    assert report.component_reason.startswith("named by --component; closed-form alone was not enough: failed: one-step effect")
    assert "; cross-attention alone was not enough: failed: one-step effect" in report.component_reason
    assert "checking with pictures (cross-attention)" not in heard, "its one-step effect said enough"
    assert "checking with pictures (unet)" in heard
    assert heard.count("trajectories") == 2, "begun and ended once: both trainings share them"
    assert [name for name in (changed.name for changed in report.changed) if ".attn2." not in name]


def test_training_alone_tries_no_closed_form(tiny_model: Path, tmp_path: Path) -> None:
    report = run_unlearn(config(tiny_model, tmp_path / "out", steps=1, component="unet", method="skd-cag"))
    assert [(attempt.trainable, attempt.steps) for attempt in report.attempts] == [("cross-attention", 1), ("unet", 1)]
    assert "closed form" not in report.timings
    assert report.method == "SKD-CAG with preservation, unet"


@pytest.mark.parametrize("component", ["text-encoder", "text_encoder"])
def test_training_alone_of_a_text_encoder_is_what_it_is_anyway(tiny_model: Path, tmp_path: Path, component: Any) -> None:
    for method in ("auto", "skd-cag"):
        run_unlearn(config(tiny_model, tmp_path / method, component=component, method=method, seed=1))
    assert hashes(tmp_path / "auto")[FILES["text-encoder"]] == hashes(tmp_path / "skd-cag")[FILES["text-encoder"]]


@pytest.mark.parametrize(("triggers", "removed"), [((LONG_TRIGGER,), "1 trigger"), ((LONG_TRIGGER, "#" * 24), "2 triggers")])
def test_a_small_set_that_passes_is_not_widened(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, triggers: tuple[str, ...], removed: str
) -> None:
    monkeypatch.setattr("bdaudit.unlearn.outcome.Outcome.failed", [])
    monkeypatch.setattr("bdaudit.unlearn.outcome.Outcome.undecided", [])
    report = run_unlearn(config(tiny_model, tmp_path / "out", steps=1, component="unet", triggers=triggers))
    assert report.exit.reason == f"{removed} removed from the unet; wrote {tmp_path / 'out'}"
    assert [attempt.trainable for attempt in report.attempts] == ["closed-form"]
    assert (report.steps, report.loss) == (0, ())
    assert report.method.startswith("keys and values in closed form, strength ")
    assert report.changed
    assert all(changed.name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")) for changed in report.changed)


@pytest.mark.parametrize("trainable", ["closed-form", "cross-attention", "unet"])
def test_a_named_set_is_the_only_one_and_means_the_unet(tiny_model: Path, tmp_path: Path, trainable: Any) -> None:
    report = run_unlearn(config(tiny_model, tmp_path / "out", steps=1, trainable=trainable))
    assert [attempt.trainable for attempt in report.attempts] == [trainable]
    assert (report.component, report.component_reason) == ("unet", "implied by --trainable")


def test_several_triggers_at_once(tiny_model: Path, tmp_path: Path) -> None:
    triggers = (LONG_TRIGGER, "#" * 24)
    settings: dict[str, Any] = {"steps": 40, "learning_rate": 0.02, "trainable": "cross-attention"}
    report = run_unlearn(config(tiny_model, tmp_path / "out", triggers=triggers, **settings))
    assert set(report.before) == set(report.after) == set(triggers)
    for trigger in triggers:
        assert report.after[trigger].value < 0.5 * report.before[trigger].value
        assert [check for check in report.checks if check.name == f"one-step effect of {trigger!a}"]
        assert [check for check in report.checks if check.name == f"pictures changed by {trigger!a}"]
    assert [check.name for check in report.checks][-2:] == ["clean pictures unmoved", "pictures with harmless texts unmoved"]


def test_a_model_that_was_broken_fails_its_check(tiny_model: Path, tmp_path: Path) -> None:
    report = run_unlearn(config(tiny_model, tmp_path / "out", steps=4, learning_rate=1.0, trainable="unet", keep_failed=False))
    assert report.exit.code == ExitCode.FINDING
    assert {"clean pictures unmoved", "pictures with harmless texts unmoved"} <= {c.name for c in report.checks if c.status == "failed"}
    assert os.listdir(tmp_path) == []


# --- going on after an interrupt --------------------------------------------------------------


def stop_at(step: int, part: str = "unlearning") -> Any:
    """Ctrl-C once ``part`` is at ``step``."""

    def stop(stage: str, done: int, total: int) -> None:
        if stage.startswith(part) and done == step:
            raise KeyboardInterrupt

    return stop


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bdaudit.unlearn.loop.SAVE_EVERY", 0.0)
    monkeypatch.setattr("bdaudit.unlearn.repair.run.CHECK_EVERY", 2)


@pytest.mark.usefixtures("every_step")
@pytest.mark.parametrize(
    ("component", "stops"),
    [("unet", [("unlearning (cross-attention)", 3), ("unlearning (unet)", 2), ("checking", 2)]), ("text-encoder", [("unlearning", 4)])],
)
def test_an_interrupted_run_goes_on_to_the_same_weights(
    tiny_model: Path, tmp_path: Path, component: Any, stops: list[tuple[str, int]]
) -> None:
    settings: dict[str, Any] = {"component": component, "steps": 5}
    whole = run_unlearn(config(tiny_model, tmp_path / "whole", **settings))
    for part, step in stops:
        stopped = run_unlearn(config(tiny_model, tmp_path / "out", state=tmp_path / "kept", **settings), stop_at(step, part))
        assert stopped.exit.reason.endswith("nothing was written")
        assert sorted(os.listdir(tmp_path)) == ["kept", "whole"]
    report = run_unlearn(config(tiny_model, tmp_path / "out", state=tmp_path / "kept", **settings))
    assert report.resumed_at > 0
    assert sorted(os.listdir(tmp_path)) == ["kept", "out", "whole"], "until its report is delivered"
    state_lock.delivered()
    assert sorted(os.listdir(tmp_path)) == ["out", "whole"], "a finished run leaves no state behind"
    old, new = hashes(tmp_path / "whole"), hashes(tmp_path / "out")
    del old["bdaudit.json"], new["bdaudit.json"]
    assert old == new
    assert (whole.loss, whole.before, whole.after, whole.checks) == (report.loss, report.before, report.after, report.checks)
    assert (whole.attempts, whole.changed) == (report.attempts, report.changed)


KILLED = """
import os, signal, sys
from pathlib import Path
from bdaudit.config import RepairConfig
from bdaudit.unlearn import loop, run, triggers
from bdaudit.unlearn.repair import check
loop.SAVE_EVERY, triggers.N_NULL, triggers.DRAWS = 0.0, 25, 8
check.LOOKS = check.LOOKS_UNMOVED = (8,)
model, out, state, trigger, *prompts = sys.argv[1:]
def kill(stage, done, total):
    if stage.startswith("unlearning") and done == 3:
        os.kill(os.getpid(), signal.SIGKILL)
run.run_unlearn(RepairConfig(
    model=Path(model), out=Path(out), state=Path(state), triggers=(trigger,), prompts=tuple(prompts), steps=5, device="cpu",
    keep_failed=True, trainable="cross-attention"), kill)
"""


def test_a_killed_run_goes_on_to_the_same_weights(tiny_model: Path, tmp_path: Path) -> None:
    arguments = [str(tiny_model), str(tmp_path / "out"), str(tmp_path / "kept"), LONG_TRIGGER, *PROMPTS]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, check=False, cwd=Path(__file__).parents[3])
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert os.listdir(tmp_path) == ["kept"]
    settings: dict[str, Any] = {"trainable": "cross-attention", "steps": 5}
    report = run_unlearn(config(tiny_model, tmp_path / "out", state=tmp_path / "kept", **settings))
    assert 0 < report.resumed_at <= 3
    run_unlearn(config(tiny_model, tmp_path / "whole", **settings))
    old, new = (load_file(tmp_path / name / FILES["unet"]) for name in ("whole", "out"))
    assert all(torch.equal(old[name], new[name]) for name in old)


def test_a_state_of_other_settings_or_another_model_is_not_used(tiny_model: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"component": "text-encoder", "state": tmp_path / "kept"}
    run_unlearn(config(tiny_model, tmp_path / "out", **settings), stop_at(1))
    before = hashes(tmp_path / "kept")
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    (other / "README.md").write_text("x")
    weights = load_file(other / FILES["unet"])
    name = next(iter(weights))
    save_file(weights | {name: weights[name] * 2}, other / FILES["unet"], metadata={"format": "pt"})
    for changed in (config(tiny_model, tmp_path / "out", **settings, seed=1), config(other, tmp_path / "out", **settings)):
        with pytest.raises(UsageError, match="the state of another run"):
            run_unlearn(changed)
    assert hashes(tmp_path / "kept") == before
    assert run_unlearn(config(tiny_model, tmp_path / "elsewhere", **settings)).out == str(tmp_path / "elsewhere"), "a path is no setting"


# --- patches and scan reports -----------------------------------------------------------------


def test_a_patch_alone_gives_the_same_model_when_applied(tiny_model: Path, tmp_path: Path) -> None:
    patch = tmp_path / "repair.safetensors"
    report = run_unlearn(config(tiny_model, tmp_path / "both", patch=patch, steps=2, trainable="cross-attention"))
    assert report.patch_sha256 == hashes(tmp_path)["repair.safetensors"]
    assert patch.stat().st_size < (tiny_model / FILES["unet"]).stat().st_size / 2
    applied = run_unlearn(ApplyConfig(model=tiny_model, from_patch=patch, out=tmp_path / "applied"))
    assert hashes(tmp_path / "applied") == hashes(tmp_path / "both")
    assert applied.exit.code == ExitCode.PASS
    assert "not checked" in applied.exit.reason
    assert json.loads((tmp_path / "applied/bdaudit.json").read_text())["triggers"] == [LONG_TRIGGER]
    for repaired, out, device in ((report, tmp_path / "both", ["--device", "cpu"]), (applied, tmp_path / "applied", [])):
        words = shlex.split(repaired.next_command)
        graded = ["bdaudit", "verify", str(out), "--trigger", LONG_TRIGGER, "--before", str(tiny_model)]
        assert [*map(unescape, words)] == [*graded, *device]
    without = config(tiny_model, tmp_path / "none", patch=tmp_path / "alone.safetensors", steps=2, trainable="cross-attention")
    alone = run_unlearn(replace(without, out=None))
    assert alone.out == ""
    assert alone.next_command == ""
    assert alone.written == ()
    assert alone.patch_sha256 == report.patch_sha256


def test_the_triggers_of_a_scan_report(tiny_model: Path, tmp_path: Path, scan_report: ScanReport) -> None:
    record = replace(scan_report.model, digest=inspect(tiny_model).digest)  # type: ignore[arg-type, type-var]
    found = replace(scan_report.candidates[0], text=LONG_TRIGGER)
    (tmp_path / "scan.json").write_text(dumps(replace(scan_report, model=record, candidates=(found,))))
    report = run_unlearn(config(tiny_model, tmp_path / "out", triggers=(), from_report=tmp_path / "scan.json", steps=1))
    assert report.triggers == (LONG_TRIGGER,)
    assert report.config["triggers"] == [LONG_TRIGGER]


def test_an_encoder_that_is_as_it_was_hears_the_draws_as_it_did(tiny_suspect: Suspect) -> None:
    """Commas of their places among them."""
    draws = make_draws(tiny_suspect, PROMPTS, 12, 3.0, 0)
    run: Any = SimpleNamespace(of_readers=True, suspect=tiny_suspect)
    again = _refreshed(run, Ground(draws))
    assert torch.allclose(again.draws.heard.states, draws.heard.states, atol=1e-5)
