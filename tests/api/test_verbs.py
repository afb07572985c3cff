"""The verbs from Python: the configs and reports of the command line, silence, and errors that no caller takes for a pass."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import bdaudit as package
from bdaudit.api import verbs
from bdaudit.api.options import RunOptions, ScanOptions, UnlearnOptions, VerifyOptions
from bdaudit.api.values import fields_of
from bdaudit.config import JOBS, RunConfig, ScanConfig, VerifyConfig
from bdaudit.errors import BdauditError, ExitCode, InconclusiveError, RefusedError, UsageError
from bdaudit.records import ScanReport, UnlearnReport, VerifyReport
from tests.cli import conftest
from tests.small import PROMPTS

bdaudit, verb, model = conftest.bdaudit, conftest.verb, conftest.model
GUIDE = Path(__file__).parents[2] / ".github/guide/python.md"


@pytest.mark.parametrize(
    ("options", "kinds"),
    [(RunOptions, (RunConfig,)), (ScanOptions, (ScanConfig,)), (UnlearnOptions, tuple(JOBS)), (VerifyOptions, (VerifyConfig,))],
)
def test_every_field_of_the_configs_is_an_option_and_nothing_else(options: Any, kinds: Any) -> None:
    assert set(get_type_hints(options)) - {"progress"} == set(fields_of(kinds)) - {"model"}


def test_a_scan_is_the_command_lines(bdaudit: Any, verb: Any, model: Path, tmp_path: Path, scan_report: ScanReport) -> None:
    (tmp_path / "tokens.txt").write_text("cf\n", encoding="utf-8")
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS), encoding="utf-8")
    seen = verb("scan", scan_report)
    bdaudit("scan", model, "--candidates", tmp_path / "tokens.txt", "--sweep", "unicode", "--alpha", 0.02, "--seed", 3, "--size", "64")
    report = package.scan(str(model), candidates=["cf"], sweeps=["unicode"], alpha=0.02, seed=3, size=(64, 64))
    assert seen[0] == seen[1]
    assert report == scan_report
    package.scan(model, candidates=["cf"])
    package.scan(model, candidates=["cf"])
    assert seen[2].seed != seen[3].seed, "drawn from the system, as on the command line"


def test_unlearn_and_verify_are_too(
    bdaudit: Any, verb: Any, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unlearn_report: Any, verify_report: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    repairs, checks = verb("unlearn", unlearn_report), verb("verify", verify_report)
    bdaudit("unlearn", model, "--trigger", "cf", "--steps", 9)
    assert isinstance(package.unlearn(model, triggers=["cf"], steps=9), UnlearnReport)
    assert repairs[0] == repairs[1]
    assert repairs[0].out == tmp_path / "model-unlearned"
    Path("p.toml").write_text("[verify]\nmax_asr = 0.2\n")
    bdaudit("verify", model, "--trigger", "cf", "--policy", "p.toml", "--swap", "dog=cat", "--evidence", "none")
    assert isinstance(package.verify(model, triggers=["cf"], policy="p.toml", swaps=["dog=cat"], evidence="none"), VerifyReport)
    assert checks[0] == checks[1]


def test_texts_are_themselves(verb: Any, model: Path, scan_report: ScanReport) -> None:
    seen = verb("scan", scan_report)
    package.scan(model, candidates=["\\u020F", "U+020F"])
    assert seen[0].candidates == ("\\u020F", "U+020F")


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a name": ({"candidate": ["cf"]}, "'candidate' is no option; expected one of .*candidates"),
    "a text for texts": ({"candidates": "cf"}, "candidates is 'cf'"),
    "a figure": ({"alpha": "much"}, "alpha is 'much'"),
    "a choice": ({"fail_on": "always"}, "fail_on is 'always'"),
    "a bound": ({"alpha": 2.0}, "--alpha is 2.0"),
    "no number": ({"guidance_scale": float("nan")}, "--guidance-scale is nan"),
    "a file": ({"prompts_file": "missing.txt"}, "prompts_file missing.txt: no such file"),
    "an adapter": ({"adapters": ["missing.safetensors"]}, "missing.safetensors: no such file"),
    "an empty place": ({"state": ""}, "state is empty"),
    "both": ({"seed": 1, "seed_from": "PATH"}, "both say"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_option_is_told_before_any_work(verb: Any, model: Path, name: str) -> None:
    seen = verb("scan", RuntimeError("work was done"))
    options, said = WRONG[name]
    with pytest.raises(UsageError, match=said):
        package.scan(model, **options)
    assert seen == []


def test_the_models_maker_is_not_asked(verb: Any, model: Path) -> None:
    seen = verb("scan", RuntimeError("work was done"))
    (model / "clip").mkdir()
    with pytest.raises(UsageError, match="whose maker wrote it"):
        package.scan(model, clip=f"local-dir:{model}/clip")
    with pytest.raises(UsageError, match="which is never written"):
        package.scan(model, state=model / "state")
    assert seen == []


def test_the_environment_is_as_before_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    told, *others = verbs._QUIET
    monkeypatch.setenv(told, "the caller's own")
    for name in others:
        monkeypatch.delenv(name, raising=False)
    with verbs._quiet():
        assert os.environ[told] == "the caller's own"
        assert [os.environ[name] for name in others] == [verbs._QUIET[name] for name in others]
    assert os.environ[told] == "the caller's own"
    assert not [name for name in others if name in os.environ]


@pytest.mark.parametrize("error", [RefusedError(["a pickle"]), InconclusiveError("unsupported"), BdauditError("damaged")])
def test_what_cannot_be_run_raises(verb: Any, model: Path, error: BdauditError) -> None:
    verb("scan", error)
    with pytest.raises(type(error)):
        package.scan(model)


def test_of_several_variants_a_failure_hides_no_finding(verb: Any, model: Path, scan_report: ScanReport) -> None:
    (model / "unet").mkdir()
    for name in ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors"):
        (model / "unet" / name).touch()

    def run(config: Any, progress: Any) -> ScanReport:
        if config.variant == "full":
            raise BdauditError("damaged")
        return scan_report

    verb("scan", run)
    report = package.scan(model, variant="all")
    assert {each.variant: each.code for each in report.variants} == {"full": ExitCode.ERROR, "fp16": ExitCode.FINDING}
    assert report.exit.code == ExitCode.FINDING


def test_the_packages_of_the_verbs_are_the_functions_and_stay_packages() -> None:
    import bdaudit.scan.run as run

    assert callable(package.scan)
    assert run.run_scan.__module__ == "bdaudit.scan.run"
    for name in ("scan", "unlearn", "verify"):
        assert list(inspect.signature(getattr(package, name)).parameters) == ["model", "options"]
        assert getattr(package, name).__doc__


def test_a_model_is_opened_in_silence_and_its_attention_recorded(tiny_model: Path) -> None:
    program = """
import sys, bdaudit, torch
model = bdaudit.load(sys.argv[1], device="cpu", dtype="float32")
heard, latents, t = model.encode(["a cat"]), model.noise([0]), torch.tensor([500.0])
plain = model.predict_batched(latents, t, heard)
with model.record_attention() as recording:
    assert torch.equal(model.predict_batched(latents, t, heard), plain)
maps = recording.latest()
assert maps and all(m.shape[0] == 1 and m.shape[2] == heard.states.shape[1] for m in maps.values())
"""
    done = subprocess.run([sys.executable, "-c", program, str(tiny_model)], capture_output=True, encoding="utf-8", timeout=300, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_guides_program_runs(
    verb: Any, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, request: pytest.FixtureRequest
) -> None:
    """Its runs are stand-ins, which take minutes otherwise; configs, reports, pages and the model's parts are real."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_model, "model")
    Path("repaired").mkdir()
    seen = {name: verb(name, request.getfixturevalue(f"{name}_report")) for name in ("scan", "unlearn", "verify")}
    text = GUIDE.read_text(encoding="utf-8")
    exec(compile("".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)), str(GUIDE), "exec"), {})
    assert {name: len(configs) for name, configs in seen.items()} == {"scan": 1, "unlearn": 1, "verify": 1}
    assert "the trigger moves the prediction by" in capsys.readouterr().out
    assert Path("scan.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert len(text.split()) <= 600
