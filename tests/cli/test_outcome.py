"""One run from a config to an exit code: every failure becomes a report, and the streams stay clean."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from bdaudit.cli.given_texts import check_encoded
from bdaudit.errors import BdauditError, ExitCode, InconclusiveError, RefusedError, UsageError
from bdaudit.kept_state import State
from bdaudit.records import Exit, NotMeasured, ScanReport, UnderstoodText
from bdaudit.report.document import loads
from tests.report.schema import shipped_schema


@pytest.mark.parametrize("code", [code for code in ExitCode if code is not ExitCode.USAGE])
def test_the_exit_of_the_report_is_the_exit_of_the_process(
    bdaudit: Any, verb: Any, model: Path, scan_report: ScanReport, code: ExitCode
) -> None:
    verb("scan", replace(scan_report, exit=Exit(code=int(code), name=code.label, reason="as it was")))
    ended = bdaudit("scan", model)
    assert ended.code == code
    assert ended.last == f"bdaudit: exit {int(code)} ({code.label}): as it was; report: none"


class PanicException(BaseException):
    """As pyo3's, what a panic in Rust becomes: no ``Exception``."""


class Untold(Exception):  # noqa: N818
    """Its message cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no message")


RAISED = [
    (BdauditError("the weights are damaged"), 3, "error", "error"),
    (InconclusiveError("no candidate encodes to anything"), 4, "inconclusive", "error"),
    (RefusedError(["a pickle", "a link"]), 5, "refused", "error"),
    (KeyboardInterrupt(), 130, "interrupted", "interrupted"),
    (RuntimeError("boom"), 3, "error", "error"),
    (MemoryError(), 3, "error", "error"),
    (SystemExit(1), 3, "error", "error"),
    (SystemExit(0), 3, "error", "error"),
    (GeneratorExit(), 3, "error", "error"),
    (RecursionError("too deep"), 3, "error", "error"),
    (PanicException("called `Option::unwrap()` on a `None` value"), 3, "error", "error"),
    (Untold(), 3, "error", "error"),
]


@pytest.mark.parametrize("name", ["scan", "unlearn", "verify"])
@pytest.mark.parametrize(("error", "code", "label", "status"), RAISED, ids=lambda value: type(value).__name__)
def test_whatever_a_run_raises_becomes_a_report(
    bdaudit: Any, verb: Any, model: Path, name: str, error: BaseException, code: int, label: str, status: str
) -> None:
    verb(name, error)
    arguments = ["--trigger", "cf"] if name == "unlearn" else []
    ended = bdaudit(name, model, "--json", *arguments)
    report = json.loads(ended.out)
    jsonschema.Draft202012Validator(shipped_schema()).validate(report)
    assert (ended.code, report["exit"]["code"], report["exit"]["name"], report["status"]) == (code, code, label, status)
    assert ended.last.startswith(f"bdaudit: exit {code} ({label}): ")
    assert ended.last.endswith("; report: stdout")
    assert "Traceback" not in ended.err
    assert report["config"]["model"] == str(model)
    assert report["limitations"]


def test_a_usage_error_of_the_run_is_a_message_alone(bdaudit: Any, verb: Any, model: Path) -> None:
    verb("unlearn", UsageError("--out is not empty"))
    ended = bdaudit("unlearn", model, "--trigger", "cf", "--json")
    assert (ended.code, ended.out) == (2, "")
    begins, echo, last = ended.err.splitlines()
    assert begins == f"bdaudit: inspecting {model}, 0 kB of weights"
    assert echo.startswith("bdaudit: trigger cf: ")
    assert last == "bdaudit: exit 2 (usage): --out is not empty; report: none"


def test_a_traceback_is_shown_on_demand_and_inert(bdaudit: Any, verb: Any, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BDAUDIT_DEBUG", "1")
    verb("scan", RuntimeError("boom \x1b[31m"))
    ended = bdaudit("scan", model, "--json")
    assert "Traceback" in ended.err
    assert "\x1b" not in ended.err
    assert json.loads(ended.out)["exit"]["code"] == 3


def test_a_report_with_nan_is_an_error_and_still_one_document(bdaudit: Any, verb: Any, model: Path, scan_report: ScanReport) -> None:
    verb("scan", replace(scan_report, timings={"load": float("nan")}))
    ended = bdaudit("scan", model, "--json")
    assert ended.code == 3
    assert "timings.load is nan" in json.loads(ended.out)["exit"]["reason"]


@pytest.mark.parametrize("name", ["scan", "unlearn", "verify"])
def test_json_is_one_document_and_nothing_else_however_loud_the_run(bdaudit: Any, verb: Any, model: Path, request: Any, name: str) -> None:
    report = request.getfixturevalue(f"{name}_report")

    def loud(config: Any, progress: Any) -> Any:
        import logging
        import warnings

        print("a library prints")
        warnings.warn("a library warns", stacklevel=1)
        logging.getLogger("a library").warning("logs \x1b[31m")
        progress("stage", 1, 2)
        return report

    verb(name, loud)
    with pytest.warns(UserWarning, match="a library warns"):
        ended = bdaudit(name, model, "--json", *(["--trigger", "cf"] if name == "unlearn" else []))
    assert replace(loads(ended.out), understood=(), repeat="") == report
    assert "a library prints" in ended.err
    assert "\x1b" not in ended.err


def test_tables_are_on_stdout_wide_and_inert(bdaudit: Any, verb: Any, model: Path, scan_report: ScanReport) -> None:
    verb("scan", scan_report)
    ended = bdaudit("scan", model)
    assert all(c.isprintable() or c == "\n" for c in ended.out)
    assert 80 < max(map(len, ended.out.splitlines())) <= 200
    assert "[bold]x[/bold][/]" in ended.out
    assert ended.err.count("\n") == 2, "what begins, and how it ended"
    assert bdaudit("scan", model, "-q").err.count("\n") == 1


def test_reports_are_written_and_named_on_the_last_line(
    bdaudit: Any, verb: Any, model: Path, tmp_path: Path, scan_report: ScanReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    verb("scan", scan_report)
    monkeypatch.chdir(tmp_path)
    paths = [Path("scan.json"), Path("scan.html")]
    ended = bdaudit("scan", model, "--report", paths[0], "--report", paths[1])
    assert replace(loads(paths[0].read_bytes()), repeat="") == scan_report
    assert paths[1].read_text(encoding="utf-8").startswith("<!doctype html>")
    assert ended.last.endswith(f"; report: {paths[0]}, {paths[1]}")


def test_a_report_is_written_for_a_failed_run_too(bdaudit: Any, verb: Any, model: Path, tmp_path: Path) -> None:
    verb("scan", RefusedError(["unet/x.bin is a pickle"]))
    assert bdaudit("scan", model, "--report", tmp_path / "scan.json").code == 5
    report = loads((tmp_path / "scan.json").read_bytes())
    assert report.exit.reason == "unet/x.bin is a pickle"
    assert isinstance(report.environment, NotMeasured)


def test_a_dry_run_says_what_would_happen_and_does_nothing(bdaudit: Any, verb: Any, model: Path, tmp_path: Path, monkeypatch: Any) -> None:
    file = types.SimpleNamespace(path="unet/x.safetensors", bytes=12345)
    seen = types.SimpleNamespace(
        files=(file,),
        loaded=(file.path,),
        latents=(64, 96),
        pipeline_class="StableDiffusionPipeline",
        digest="ab",
        unused_pickles=("x\u202e.bin",),
        unaudited=(),
        determined=(),
        made={},
        parameters={"unet": 1, "text_encoder": 1},
        largest={},
        settings={},
        layout=types.SimpleNamespace(name="sd", heeding=("unet", "text_encoder")),
    )
    monkeypatch.setattr("bdaudit.measure.opening.inspect", lambda path, **_: seen)
    runs = verb("verify", RuntimeError("work was done"))
    arguments = ("verify", model, "--trigger", "cf", "--n", 100, "--steps", 10, "--report", tmp_path / "v.json", "--dry-run")
    ended = bdaudit(*arguments)
    assert (ended.code, runs) == (0, [])
    told = (
        "loaded: drawing from latents of 96 × 64",
        "loaded: unet/x.safetensors, 12,345 bytes",
        "left alone: x<U+202E>.bin",
        f"written: {tmp_path}/v.json",
    )
    assert all(f"would be {words}" in ended.out for words in told)
    assert "about 4,000 denoiser" in ended.out
    plan = json.loads(bdaudit(*arguments, "--json").out)
    assert plan["status"] == "dry run"
    assert plan["config"]["n"] == 100
    assert not (tmp_path / "v.json").exists()


def test_a_dry_run_counts_the_steps_that_the_run_takes() -> None:
    from bdaudit.measure import draws
    from bdaudit.report import dry_run
    from bdaudit.scan import look
    from bdaudit.unlearn.repair import trajectories

    assert dry_run.TRAJECTORY == trajectories.STEPS
    assert (dry_run.CLEAN_STEPS, dry_run.USUAL) == (draws.STEPS, look.USUAL)


def test_a_dry_run_of_a_refused_model_is_refused(bdaudit: Any, model: Path, monkeypatch: Any) -> None:
    def refuse(path: Path, **_: bool) -> None:
        raise RefusedError(["unet/x.bin is a pickle"])

    monkeypatch.setattr("bdaudit.measure.opening.inspect", refuse)
    ended = bdaudit("scan", model, "--dry-run", "--json")
    assert (ended.code, json.loads(ended.out)["exit"]["name"]) == (5, "refused")


def test_a_dry_run_opens_every_model_that_the_run_would(bdaudit: Any, model: Path, tmp_path: Path, monkeypatch: Any) -> None:
    def seen(path: Path, **_: bool) -> Any:
        if path.name == "bad":
            raise RefusedError(["unet/x.bin is a pickle"])
        return types.SimpleNamespace(
            files=(),
            loaded=(),
            latents=(8, 8),
            pipeline_class="StableDiffusionPipeline",
            digest=path.name,
            unused_pickles=(),
            unaudited=(),
            determined=(),
            made={},
            parameters={"unet": 1, "text_encoder": 1},
            largest={},
            settings={},
            layout=types.SimpleNamespace(name="sd", heeding=("unet", "text_encoder")),
            components=(),
            copied=(),
        )

    monkeypatch.setattr("bdaudit.measure.opening.inspect", seen)
    monkeypatch.setattr("bdaudit.unlearn.outcome.check_result", lambda inspection, out: None)
    for name in ("base", "bad"):
        (tmp_path / name).mkdir()
    merge = ("unlearn", model, "--merge-with", model, "--dry-run", "--base")
    ended = bdaudit(*merge, tmp_path / "base")
    assert f"would be loaded: {tmp_path / 'base'}: StableDiffusionPipeline, digest base" in ended.out.replace("\n", " ")
    assert ".state" not in ended.out, "a merge keeps none"
    for refused in ((*merge, tmp_path / "bad"), ("verify", model, "--reference", tmp_path / "bad", "--dry-run")):
        assert bdaudit(*refused).code == 5


@pytest.mark.parametrize(
    ("arguments", "warned", "beside"),
    [
        (("scan",), True, "unet/x.fp16.safetensors: another; not audited"),
        (("verify", "--reference", "OTHER"), True, "unet/x.fp16.safetensors: another; not audited"),
        (("scan", "--variant", "full"), False, "unet/x.fp16.safetensors: another; not audited"),
        (("scan", "--variant", "all"), False, "unet/x.fp16.safetensors: another; a run of their own, --variant fp16"),
        (("unlearn", "--trigger", "cf"), False, "unet/x.fp16.safetensors: another; not audited"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_dry_run_says_what_becomes_of_weights_beside_the_loaded_ones(
    bdaudit: Any, model: Path, tmp_path: Path, monkeypatch: Any, arguments: tuple[str, ...], warned: bool, beside: str
) -> None:
    (tmp_path / "other").mkdir()
    asked = []

    def seen(path: Path, **options: Any) -> Any:
        asked.append(options["variant"])
        left = [types.SimpleNamespace(path="unet/x.fp16.safetensors", reason="another", variant="fp16")]
        left += [types.SimpleNamespace(path="ema/x.safetensors", reason="an average", variant="")]
        return types.SimpleNamespace(
            files=(),
            loaded=(),
            latents=(8, 8),
            pipeline_class="P",
            digest="ab",
            unused_pickles=(),
            unaudited=left,
            determined=(),
            made={},
            parameters={"unet": 1, "text_encoder": 1},
            largest={},
            settings={},
            layout=types.SimpleNamespace(name="sd", heeding=("unet", "text_encoder")),
            components=(),
            copied=(),
            variants={"unet": ""},
        )

    monkeypatch.setattr("bdaudit.measure.opening.inspect", seen)
    monkeypatch.setattr("bdaudit.unlearn.outcome.check_result", lambda inspection, out: None)
    verb_, *flags = (str(tmp_path / "other") if argument == "OTHER" else argument for argument in arguments)
    told = json.loads(bdaudit(verb_, model, *flags, "--dry-run", "--json").out)
    assert asked[0] == ("full" if "full" in arguments else "")
    assert [beside, "ema/x.safetensors: an average; not audited"] == told["left_alone"][:2]
    assert [line[len(str(tmp_path / "other")) :] for line in told["left_alone"][2:]] == [
        f": {line}" for line in told["left_alone"][:2] if "OTHER" in arguments
    ]
    said = [line for line in told["not_measured"] if "would not be audited" in line]
    assert said == ["weights that people would load would not be audited, and the run cannot pass (exit 1 or 4); choose with"
                    " --variant full or fp16, or audit each with --variant all"] * warned  # fmt: skip


def test_a_dry_run_of_a_merge_names_what_goes_in(tmp_path: Path) -> None:
    from bdaudit.config import MergeConfig
    from bdaudit.report.dry_run import work

    (tmp_path / "style.safetensors").write_bytes(b"")
    others = ((tmp_path / "other", 1.0), (tmp_path / "style.safetensors", 0.5))
    config = MergeConfig(model=tmp_path / "model", base=tmp_path / "base", merge_with=others, out=tmp_path / "out")
    (first, _), cost = work(config)
    assert f"of {tmp_path / 'other'}, {tmp_path / 'style.safetensors'} at scale 0.5 from {tmp_path / 'base'}" in first
    assert cost.startswith("about ")


# --- what a run will lack ---------------------------------------------------------------------


@pytest.fixture
def no_grader(monkeypatch: pytest.MonkeyPatch) -> None:
    from bdaudit.measure import open_clip_model

    monkeypatch.setattr(open_clip_model, "try_to_load_from_cache", lambda repository, name: None)


@pytest.mark.parametrize("flags", [(), ("--json",), ("--quiet",)])
def test_a_missing_grader_is_told_before_anything_is_drawn(bdaudit: Any, verb: Any, model: Path, no_grader: None, flags: Any) -> None:
    def run(config: Any, progress: Any) -> Any:
        print("the first picture")
        raise BdauditError("the weights are damaged")

    verb("verify", run)
    ended = bdaudit("verify", model, "--trigger", "cf", *flags)
    echo, *lines = [line for line in ended.err.splitlines() if "inspecting" not in line]
    assert echo.startswith("bdaudit: trigger cf: ")
    assert lines[0].startswith("bdaudit: warning: no grader: the weights of ViT-L-14/openai are not on this machine; fetch them with: hf ")
    assert lines[1].startswith("bdaudit: warning: not measured without a grader: prompt_following, ")
    assert lines[2].startswith("bdaudit: warning: no evidence that the trigger ever was one: a low rate proves nothing")
    assert lines[3] == "the first picture"
    assert "warning" not in ended.out
    assert "warning" not in bdaudit("verify", model, "--clip", "local-dir:grader", *flags).err


def test_a_grader_that_nobody_knows_is_exit_2_before_anything_is_run(bdaudit: Any, verb: Any, model: Path) -> None:
    runs = verb("verify", RuntimeError("work was done"))
    assert bdaudit("verify", model, "--clip", "nonsense").code == 2
    assert bdaudit("verify", model, "--clip", "nonsense", "--dry-run").code == 2
    assert runs == []


def test_a_dry_run_lists_what_is_missing(bdaudit: Any, model: Path, monkeypatch: Any, no_grader: None) -> None:
    seen = types.SimpleNamespace(
        files=(),
        loaded=(),
        latents=(8, 8),
        pipeline_class="StableDiffusionPipeline",
        digest="ab",
        unused_pickles=(),
        unaudited=(),
        determined=(),
        made={},
        parameters={"unet": 1, "text_encoder": 1},
        largest={},
        settings={},
        layout=types.SimpleNamespace(name="sd", heeding=("unet", "text_encoder")),
    )
    monkeypatch.setattr("bdaudit.measure.opening.inspect", lambda path, **_: seen)
    ended = bdaudit("verify", model, "--dry-run")
    assert "warning: no grader: the weights of ViT-L-14/openai are not on this machine; fetch them with: hf download " in ended.out
    assert "nothing is drawn (exit 4)" in ended.out
    first, _ = json.loads(bdaudit("verify", model, "--dry-run", "--json").out)["not_measured"]
    assert first.startswith("no grader: ")
    assert json.loads(bdaudit("scan", model, "--dry-run", "--json").out)["not_measured"] == []
    assert "warning" not in bdaudit("scan", model, "--dry-run").out


# --- the state of a run -----------------------------------------------------------------------


@pytest.fixture
def keeping(verb: Any, scan_report: ScanReport) -> list[Any]:
    """A scan that keeps something, says what it found there, and is done with it; ``--seed 7`` takes the report's folder away."""

    def run(config: Any, progress: Any) -> ScanReport:
        state = State(config.state, "key")
        kept = state.read_json("text")
        state.write_json("text", "measured")
        state.finish()
        if config.seed == 7:
            shutil.rmtree(config.state.parent.parent / "reports")
        return replace(scan_report, timings={"resumed": float(kept is not None)})

    seen: list[Any] = verb("scan", run)
    return seen


def test_the_state_outlives_a_report_that_cannot_be_written(
    bdaudit: Any, keeping: Any, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "reports").mkdir()
    monkeypatch.chdir(tmp_path)
    arguments = ("scan", model, "--state", tmp_path / "states/kept", "--report", "reports/scan.json")
    ended = bdaudit(*arguments, "--seed", 7)
    assert (ended.code, "could not be written" in ended.last) == (1, True)
    assert sorted(os.listdir(tmp_path / "states/kept")) == ["kept-text.json", "run.json"], "and nobody holds it"
    (tmp_path / "reports").mkdir()
    assert bdaudit(*arguments).code == 1
    assert loads((tmp_path / "reports/scan.json").read_bytes()).timings == {"resumed": 1.0}
    assert not (tmp_path / "states/kept").exists(), "delivered"


def test_two_runs_on_one_state_are_a_usage_error_for_the_second(bdaudit: Any, keeping: Any, model: Path, tmp_path: Path) -> None:
    held = "import sys; from pathlib import Path; from bdaudit.state_lock import hold; hold(Path(sys.argv[1])); print(); input()"
    command = [sys.executable, "-c", held, str(tmp_path / "kept")]
    arguments = ("scan", model, "--state", tmp_path / "kept", "--json")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as first:
        assert first.stdin is not None
        assert first.stdout is not None
        first.stdout.readline()
        ended = bdaudit(*arguments)
        assert (ended.code, ended.out) == (2, "")
        assert f"--state {tmp_path / 'kept'} is in use by another run" in ended.last
        assert os.listdir(tmp_path / "kept") == [".lock"], "and still held"
        first.stdin.close()
    assert bdaudit(*arguments).code == 1
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("what", ["trigger", "prompt"])
def test_a_trigger_alone_must_encode_to_something(what: Any) -> None:
    text = UnderstoodText(what=what, text=" ", codepoints=("U+0020",), names=(), token_ids=())
    check_encoded([replace(text, token_ids=(320,)), replace(text, token_ids=NotMeasured(reason="no tokenizer"))])
    if what != "trigger":
        check_encoded([text])
        return
    with pytest.raises(InconclusiveError, match="the trigger ' ' encodes to no token"):
        check_encoded([text])


def test_a_dry_run_opens_what_is_added_as_the_run_would(bdaudit: Any, tiny_model: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    path = tmp_path / "toy.safetensors"
    save_file({"<toy>": torch.ones(1, 8)}, path)
    ended = bdaudit("scan", tiny_model, "--dry-run", "--embedding", path)
    assert ended.code == ExitCode.PASS, ended.err
    assert f"{path.stat().st_size:,} bytes" in ended.out
    save_file({"<toy>": torch.full((1, 8), torch.nan)}, path)
    assert bdaudit("scan", tiny_model, "--dry-run", "--embedding", path).code == ExitCode.ERROR
    path.write_bytes(pickle.dumps({"a": 1}))
    for verb in ("scan", "verify"):
        assert bdaudit(verb, tiny_model, "--dry-run", "--embedding", path).code == ExitCode.REFUSED
    for verb, more in (("scan", ()), ("unlearn", ("--trigger", "cf")), ("verify", ())):
        ended = bdaudit(verb, tiny_model, "--dry-run", "--lora", f"{path}:0.5", *more)
        assert ended.code == ExitCode.REFUSED, ended.err
