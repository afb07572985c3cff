"""The command line with small verbs in place of the real ones: exit codes, streams, hostile text."""

from __future__ import annotations

import json
import os
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from bdaudit import cli, commands
from bdaudit.config import ScanConfig, UnlearnConfig, VerifyConfig
from bdaudit.errors import BdauditError, ExitCode, InconclusiveError, Interrupted, RefusedError, UsageError
from bdaudit.report.document import loads, shipped_schema
from bdaudit.report.records import Exit, NotMeasured, ScanReport, UnlearnReport, VerifyReport


@dataclass
class Ended:
    code: int
    out: str
    err: str

    @property
    def last(self) -> str:
        return self.err.splitlines()[-1]


@pytest.fixture
def bdaudit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Runs ``bdaudit ARGUMENTS`` in this process."""
    for name in cli.QUIET_AND_OFFLINE:
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.delenv("BDAUDIT_DEBUG", raising=False)

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["bdaudit", *map(str, arguments)])
        code = cli.main()
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return run


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Puts a function in a verb's place; the list it returns gets each config."""

    def put(name: str, result: Any) -> list[Any]:
        seen: list[Any] = []

        def run(config: Any, progress: Any) -> Any:
            seen.append(config)
            if isinstance(result, BaseException):
                raise result
            return result(config, progress) if callable(result) else result

        module = types.ModuleType(f"bdaudit.{name}.run")
        setattr(module, f"run_{name}", run)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return seen

    return put


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    return path


# --- exit codes


@pytest.mark.parametrize("code", [code for code in ExitCode if code is not ExitCode.USAGE])
def test_the_exit_of_the_report_is_the_exit_of_the_process(
    bdaudit: Any, verb: Any, model: Path, scan_report: ScanReport, code: ExitCode
) -> None:
    verb("scan", replace(scan_report, exit=Exit(code=int(code), name=code.label, reason="as it was")))
    ended = bdaudit("scan", model)
    assert ended.code == code
    assert ended.last == f"bdaudit: exit {int(code)} ({code.label}): as it was; report: none"


RAISED = [
    (BdauditError("the weights are damaged"), 3, "error", "error"),
    (InconclusiveError("no candidate encodes to anything"), 4, "inconclusive", "error"),
    (RefusedError(["a pickle", "a link"]), 5, "refused", "error"),
    (Interrupted("stopped"), 130, "interrupted", "interrupted"),
    (KeyboardInterrupt(), 130, "interrupted", "interrupted"),
    (RuntimeError("boom"), 3, "error", "error"),
    (MemoryError(), 3, "error", "error"),
    (SystemExit(1), 3, "error", "error"),
    (SystemExit(0), 3, "error", "error"),
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
    assert ended == Ended(2, "", "bdaudit: exit 2 (usage): --out is not empty; report: none\n")


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


def test_a_broken_entry_is_exit_3_and_not_pythons_1(bdaudit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: Any) -> int:
        raise ValueError("broken \u202e")

    monkeypatch.setattr(commands, "app", broken)
    ended = bdaudit("scan")
    assert ended.code == 3
    assert ended.last == "bdaudit: exit 3 (error): ValueError: broken <U+202E> (BDAUDIT_DEBUG=1 shows where); report: none"


def test_an_interrupt_outside_a_run_is_130(bdaudit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(**_: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "app", stopped)
    assert bdaudit("scan").code == 130


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["audit"],
        ["scan"],
        ["scan", "MODEL", "--bad"],
        ["scan", "missing"],
        ["scan", "MODEL", "--alpha", "much"],
        ["scan", "MODEL", "--alpha", "nan"],
        ["scan", "MODEL", "--alpha", "2"],
        ["scan", "MODEL", "--fail-on", "always"],
        ["scan", "MODEL", "--timesteps", "0.5,x"],
        ["scan", "MODEL", "--timesteps", "1.5"],
        ["scan", "MODEL", "--guidance-scale", "inf"],
        ["scan", "MODEL", "--device", "tpu"],
        ["scan", "MODEL", "--dtype", "int8"],
        ["scan", "MODEL", "--candidates", "missing.txt"],
        ["scan", "MODEL", "--report", "scan.pdf"],
        ["scan", "MODEL", "--report", "MODEL/scan.json"],
        ["unlearn", "MODEL"],
        ["unlearn", "MODEL", "--trigger", ""],
        ["unlearn", "MODEL", "--trigger", "\\uD800"],
        ["unlearn", "MODEL", "--trigger", "x", "--out", "MODEL/out"],
        ["verify", "MODEL", "--trigger", ""],
        ["verify", "MODEL", "--swap", "dog"],
        ["verify", "MODEL", "--swap", "=cat"],
        ["verify", "MODEL", "--swap", "dog=cat", "--target-text", "a cat"],
        ["verify", "MODEL", "--target-image", "missing.png@1,2"],
        ["verify", "MODEL", "--max-fid", "nan"],
        ["verify", "MODEL", "--save-images", "MODEL/evidence"],
        ["verify", "MODEL", "--reference", "missing"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_is_exit_2_before_any_work(bdaudit: Any, verb: Any, model: Path, arguments: list[str]) -> None:
    for name in ("scan", "unlearn", "verify"):
        verb(name, RuntimeError("work was done"))
    ended = bdaudit(*(argument.replace("MODEL", str(model)) for argument in arguments))
    assert ended.code == 2
    assert ended.out == ""
    assert ended.last.startswith("bdaudit: exit 2 (usage): ")
    assert list(model.iterdir()) == []


def test_a_hostile_argument_is_inert_in_its_own_error(bdaudit: Any, model: Path) -> None:
    ended = bdaudit("scan", model, "--\x1b[31m\u202e")
    assert ended.code == 2
    assert "\x1b" not in ended.err
    assert "\u202e" not in ended.err


def test_an_argument_that_is_not_utf8_is_exit_2(bdaudit: Any, model: Path) -> None:
    ended = bdaudit("unlearn", model, "--trigger", "\udcff")
    assert (ended.code, ended.out) == (2, "")


# --- streams


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
    assert loads(ended.out) == report
    assert "a library prints" in ended.err
    assert "\x1b" not in ended.err


def test_tables_are_on_stdout_wide_and_inert(bdaudit: Any, verb: Any, model: Path, scan_report: ScanReport) -> None:
    verb("scan", scan_report)
    ended = bdaudit("scan", model)
    assert all(c.isprintable() or c == "\n" for c in ended.out)
    assert 80 < max(map(len, ended.out.splitlines())) <= 200
    assert "[bold]x[/bold][/]" in ended.out
    assert ended.err.count("\n") == 1


def test_reports_are_written_and_named_on_the_last_line(
    bdaudit: Any, verb: Any, model: Path, tmp_path: Path, scan_report: ScanReport
) -> None:
    verb("scan", scan_report)
    paths = [tmp_path / "scan.json", tmp_path / "scan.html"]
    ended = bdaudit("scan", model, "--report", paths[0], "--report", paths[1])
    assert loads(paths[0].read_bytes()) == scan_report
    assert paths[1].read_text(encoding="utf-8").startswith("<!doctype html>")
    assert ended.last.endswith(f"; report: {paths[0]}, {paths[1]}")


def test_a_report_is_written_for_a_failed_run_too(bdaudit: Any, verb: Any, model: Path, tmp_path: Path) -> None:
    verb("scan", RefusedError(["unet/x.bin is a pickle"]))
    assert bdaudit("scan", model, "--report", tmp_path / "scan.json").code == 5
    report = loads((tmp_path / "scan.json").read_bytes())
    assert report.exit.reason == "unet/x.bin is a pickle"
    assert isinstance(report.environment, NotMeasured)


def test_a_run_is_offline(bdaudit: Any, verb: Any, model: Path, scan_report: ScanReport) -> None:
    def look(config: Any, progress: Any) -> ScanReport:
        assert os.environ["HF_HUB_OFFLINE"] == os.environ["TRANSFORMERS_OFFLINE"] == "1"
        return replace(scan_report, exit=Exit(code=0, name="pass", reason="offline"))

    verb("scan", look)
    assert bdaudit("scan", model).code == 0


# --- from flags to configs


def test_scan_flags_reach_the_config(bdaudit: Any, verb: Any, model: Path, tmp_path: Path, scan_report: ScanReport) -> None:
    (tmp_path / "tokens.txt").write_text("cf\n\\u200b\n", encoding="utf-8")
    (tmp_path / "prompts.txt").write_text("a dog\na cat\n", encoding="utf-8")
    seen = verb("scan", scan_report)
    bdaudit(
        "scan", model, "--candidates", tmp_path / "tokens.txt", "--prompts", tmp_path / "prompts.txt", "--alpha", 0.02,
        "--fail-on", "suspicious", "--n-prompts", 4, "--timesteps", "0.9,0.1", "--guidance-scale", 3, "--device", "cpu",
        "--dtype", "float32", "--batch-size", 2, "--seed", 7, "--strict", "--quiet",
    )  # fmt: skip
    assert seen == [
        ScanConfig(
            model=model, candidates=("cf", "\u200b"), prompts=("a dog", "a cat"), alpha=0.02, fail_on="suspicious", n_prompts=4,
            timesteps=(0.9, 0.1), guidance_scale=3.0, device="cpu", dtype="float32", batch_size=2, seed=7, strict=True,
        )
    ]  # fmt: skip


def test_unlearn_flags_reach_the_config(bdaudit: Any, verb: Any, model: Path, tmp_path: Path, unlearn_report: UnlearnReport) -> None:
    seen = verb("unlearn", unlearn_report)
    bdaudit(
        "unlearn", model, "--trigger", "\\u020F", "--trigger", "cf", "--trigger", "cf", "--out", tmp_path / "out",
        "--component", "text-encoder", "--steps", 9, "--n-prompts", 3, "--learning-rate", 0.001, "--attention-weight", 0.25,
        "--guidance-scale", 2, "--keep-failed",
    )  # fmt: skip
    assert seen == [
        UnlearnConfig(
            model=model, triggers=("ȏ", "cf"), out=tmp_path / "out", component="text-encoder", steps=9, n_prompts=3, learning_rate=0.001,
            attention_weight=0.25, guidance_scale=2.0, keep_failed=True,
        )
    ]  # fmt: skip


def test_verify_flags_reach_the_config(bdaudit: Any, verb: Any, model: Path, tmp_path: Path, verify_report: VerifyReport) -> None:
    for name in ("other", "real"):
        (tmp_path / name).mkdir()
    (tmp_path / "patch@home.png").write_bytes(b"")
    seen = verb("verify", verify_report)
    bdaudit(
        "verify", model, "--trigger", "ȏ", "--reference", tmp_path / "other", "--real-images", tmp_path / "real",
        "--clip", "ViT-B-32/openai", "--target-image", f"{tmp_path}/patch@home.png@4,8", "--n", 10, "--steps", 5, "--guidance-scale", 2,
        "--max-asr", 0.2, "--min-clip-score", 0.1, "--max-kid", 0.3, "--max-fid", 40, "--min-clip-ratio", 0.9, "--max-distance", 0.5,
        "--save-images", tmp_path / "evidence",
    )  # fmt: skip
    assert seen == [
        VerifyConfig(
            model=model, triggers=("ȏ",), reference=tmp_path / "other", real_images=tmp_path / "real", clip="ViT-B-32/openai",
            target_image=tmp_path / "patch@home.png", target_at=(4, 8), n=10, steps=5, guidance_scale=2.0, max_asr=0.2, min_clip_score=0.1,
            max_kid=0.3, max_fid=40.0, min_clip_ratio=0.9, max_distance=0.5, save_images=tmp_path / "evidence",
        )
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["scan", "unlearn", "verify"])
def test_without_flags_the_config_is_the_default_one(bdaudit: Any, verb: Any, model: Path, request: Any, name: str) -> None:
    seen = verb(name, request.getfixturevalue(f"{name}_report"))
    bdaudit(name, model, *(["--trigger", "cf"] if name == "unlearn" else []))
    default = {
        "scan": ScanConfig(model=model),
        "unlearn": UnlearnConfig(model=model, triggers=("cf",), out=model.with_name("model-unlearned")),
        "verify": VerifyConfig(model=model),
    }
    assert seen == [default[name]]


def test_swaps_and_target_text_reach_the_config(bdaudit: Any, verb: Any, model: Path, verify_report: VerifyReport) -> None:
    seen = verb("verify", verify_report)
    bdaudit("verify", model, "--swap", "dog=cat", "--swap", "red=deep=blue")
    bdaudit("verify", model, "--target-text", "{prompt} on fire")
    assert seen[0].swaps == (("dog", "cat"), ("red", "deep=blue"))
    assert seen[1].target_text == "{prompt} on fire"


# --- dry run, help, version


def test_a_dry_run_says_what_would_happen_and_does_nothing(bdaudit: Any, verb: Any, model: Path, tmp_path: Path, monkeypatch: Any) -> None:
    from bdaudit.pipeline import inspect as inspection

    file = types.SimpleNamespace(path="unet/x.safetensors", bytes=12345)
    seen = types.SimpleNamespace(
        files=(file,), loaded=(file.path,), pipeline_class="StableDiffusionPipeline", digest="ab", unused_pickles=("x\u202e.bin",)
    )
    monkeypatch.setattr(inspection, "inspect", lambda path, *, strict: seen)
    runs = verb("verify", RuntimeError("work was done"))
    arguments = ("verify", model, "--trigger", "cf", "--n", 100, "--steps", 10, "--report", tmp_path / "v.json", "--dry-run")
    ended = bdaudit(*arguments)
    assert (ended.code, runs) == (0, [])
    told = ("unet/x.safetensors, 12,345 bytes", "left alone: x<U+202E>.bin", f"written: {tmp_path}/v.json", "about 4,000 UNet")
    assert all(words in ended.out for words in told)
    plan = json.loads(bdaudit(*arguments, "--json").out)
    assert plan["status"] == "dry run"
    assert plan["config"]["n"] == 100
    assert not (tmp_path / "v.json").exists()


def test_a_dry_run_of_a_refused_model_is_refused(bdaudit: Any, model: Path, monkeypatch: Any) -> None:
    from bdaudit.pipeline import inspect as inspection

    def refuse(path: Path, *, strict: bool) -> None:
        raise RefusedError(["unet/x.bin is a pickle"])

    monkeypatch.setattr(inspection, "inspect", refuse)
    ended = bdaudit("scan", model, "--dry-run", "--json")
    assert (ended.code, json.loads(ended.out)["exit"]["name"]) == (5, "refused")


@pytest.mark.parametrize("name", ["scan", "unlearn", "verify"])
def test_help_has_every_setting_and_examples(bdaudit: Any, name: str) -> None:
    from dataclasses import fields

    ended = bdaudit(name, "--help")
    assert ended.code == 0
    kind = {"scan": ScanConfig, "unlearn": UnlearnConfig, "verify": VerifyConfig}[name]
    spelt = {"triggers": "--trigger", "swaps": "--swap", "target_at": "@x,y", "model": "MODEL"}
    for field in fields(kind):
        assert spelt.get(field.name, f"--{field.name.replace('_', '-')}") in ended.out
    assert f"bdaudit {name} ./model" in ended.out
    assert "Exit codes" in ended.out


def test_version(bdaudit: Any) -> None:
    from bdaudit import __version__

    assert bdaudit("--version") == Ended(0, f"bdaudit {__version__}\n", "")
