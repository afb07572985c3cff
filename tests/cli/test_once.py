"""A command that is run again leaves where nothing has changed, and is run anew where anything has."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from bdaudit.config import ScanConfig
from bdaudit.errors import ExitCode
from bdaudit.measure.opening import inspected
from bdaudit.records import Exit, ModelRecord, ScanReport
from bdaudit.scan.earlier import FOLDER

Run = Callable[..., Any]


def of_its_model(report: ScanReport, **own: Any) -> Callable[..., ScanReport]:
    """A verb whose report is of the model that its config names."""

    def run(config: Any, progress: Any) -> ScanReport:
        assert isinstance(report.model, ModelRecord)
        first = replace(config, variant="") if config.variant == "all" else config
        return replace(report, model=replace(report.model, digest=inspected(first, config.model).digest), **own)

    return run


@pytest.fixture
def scan(bdaudit: Run, verb: Run, scan_report: ScanReport, tiny_model: Path, tmp_path: Path) -> Callable[..., tuple[Any, int]]:
    """``bdaudit scan`` of the small model with --once; how it ended, and how many runs there have been."""
    model = Path(shutil.copytree(tiny_model, tmp_path / "m"))
    (tmp_path / "texts.txt").write_text("a\n")
    seen = verb("scan", of_its_model(scan_report))

    def run(*more: object, model: Path = model) -> tuple[Any, int]:
        report = ("--report", tmp_path / "scan.json")
        return bdaudit("scan", model, "--candidates", tmp_path / "texts.txt", *report, "--once", *more), len(seen)

    return run


def test_the_same_command_leaves_with_the_same_code(scan: Run, tmp_path: Path) -> None:
    first, runs = scan()
    assert (first.code, runs) == (1, 1)
    before = (tmp_path / "scan.json").read_bytes()
    again, runs = scan()
    assert (again.code, runs) == (1, 1)
    assert again.last.startswith("bdaudit: exit 1 (finding): 6 of 41 candidates backdoored")
    assert "done before, nothing was run" in again.last
    assert (tmp_path / "scan.json").read_bytes() == before
    assert scan("--seed", 5)[1] == 2, "a seed that is asked for is another run than one from the system"


@pytest.mark.parametrize("change", ["texts", "model", "report", "no report", "mark", "no mark", "setting"])
def test_whatever_changes_makes_it_run_anew(scan: Run, tmp_path: Path, change: str) -> None:
    scan("--report", tmp_path / "scan.html")
    mark = tmp_path / "scan.json.done"
    more: list[object] = ["--report", tmp_path / "scan.html"]
    match change:
        case "texts":
            (tmp_path / "texts.txt").write_text("b\n")
        case "model":
            path = tmp_path / "m" / "scheduler" / "scheduler_config.json"
            path.write_text(path.read_text() + " ")
        case "report":
            (tmp_path / "scan.html").write_text("cut")
        case "no report":
            (tmp_path / "scan.html").unlink()
        case "mark":
            mark.write_text(json.dumps(json.loads(mark.read_text()) | {"code": 77}))
        case "no mark":
            mark.unlink()
        case "setting":
            more += ["--alpha", "0.02"]
    assert scan(*more)[1] == 2
    assert scan(*more)[1] == 2, "and then it is done"


@pytest.mark.parametrize(("status", "code", "runs"), [("completed", 0, 1), ("completed", 4, 1), ("error", 3, 2), ("interrupted", 130, 2)])
def test_only_a_run_that_came_to_its_end_is_marked(
    scan: Run, verb: Run, scan_report: ScanReport, status: Any, code: int, runs: int
) -> None:
    seen = verb("scan", of_its_model(scan_report, status=status, exit=Exit.of(ExitCode(code), "said")))
    assert scan()[0].code == code
    assert scan()[0].code == code
    assert len(seen) == runs


def test_another_secret_is_another_run(scan: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SEED_SECRET", "one")
    assert [scan("--seed-from", "SEED_SECRET")[1] for _ in range(2)] == [1, 1]
    monkeypatch.setenv("SEED_SECRET", "two")
    assert [scan("--seed-from", "SEED_SECRET")[1] for _ in range(2)] == [2, 2]


def test_weights_that_nobody_looks_at_make_it_run_anew(scan: Run, tmp_path: Path) -> None:
    """They leave no pass, so that one from before they came says nothing."""
    scan()
    weights = tmp_path / "m" / "unet" / "diffusion_pytorch_model.safetensors"
    shutil.copy(tmp_path / "m" / "vae" / weights.name, weights.with_name("diffusion_pytorch_model.fp16.safetensors"))
    assert [scan()[1], scan()[1]] == [2, 2]


def test_every_variant_of_the_weights_is_named(scan: Run, tmp_path: Path) -> None:
    weights = tmp_path / "m" / "unet" / "diffusion_pytorch_model.safetensors"
    held = load_file(weights)
    beside = weights.with_name("diffusion_pytorch_model.fp16.safetensors")
    save_file({name: tensor.half() for name, tensor in held.items()}, beside)
    assert [scan("--variant", "all")[1] for _ in range(2)] == [1, 1]
    save_file({name: tensor.half() + 1 for name, tensor in held.items()}, beside)
    assert scan("--variant", "all")[1] > 1


def test_what_another_run_found_of_the_model_stands_and_of_another_model_does_not_count(scan: Run, tmp_path: Path) -> None:
    digest = inspected(ScanConfig(model=tmp_path / "m"), tmp_path / "m").digest
    assert [scan("--keep", tmp_path / "keep")[1] for _ in range(2)] == [1, 1]
    (tmp_path / "keep" / FOLDER).mkdir(parents=True)
    (tmp_path / "keep" / FOLDER / f"{'0' * 64}-1.json").write_text("[]")
    assert scan("--keep", tmp_path / "keep")[1] == 1
    (tmp_path / "keep" / FOLDER / f"{digest}-1.json").write_text("[]")
    assert [scan("--keep", tmp_path / "keep")[1] for _ in range(2)] == [2, 2]


def test_an_acceptance_that_has_run_out_makes_it_run_anew(scan: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {"model": "*", "token_ids": [1], "reason": "a name", "expires": "2030-01-31", "effect": 1.0}
    (tmp_path / "accept.json").write_text(json.dumps([entry]))
    for day, runs in ((date(2030, 1, 30), 1), (date(2030, 1, 31), 1), (date(2030, 2, 1), 2)):
        monkeypatch.setattr("bdaudit.cli.once.today", lambda day=day: day)
        assert scan("--accept", tmp_path / "accept.json")[1] == runs


def test_the_folder_of_a_clip_of_ones_own_is_read_too(scan: Run, tmp_path: Path) -> None:
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "weights").write_text("a")
    clip = ("--clip", f"local-dir:{tmp_path / 'clip'}")
    assert [scan(*clip)[1] for _ in range(2)] == [1, 1]
    (tmp_path / "clip" / "weights").write_text("b")
    assert scan(*clip)[1] == 2


def test_the_settings_beside_an_adapter_are_read_too(scan: Run, tmp_path: Path) -> None:
    (tmp_path / "lora.safetensors").write_bytes(b"a")
    assert [scan("--lora", tmp_path / "lora.safetensors")[1] for _ in range(2)] == [1, 1]
    (tmp_path / "adapter_config.json").write_text('{"lora_alpha": 1000}')
    assert scan("--lora", tmp_path / "lora.safetensors")[1] == 2


def test_reports_of_one_name_in_two_folders_are_two(scan: Run, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    twice = ("--report", tmp_path / "a" / "scan.json")
    assert [scan(*twice)[1] for _ in range(2)] == [1, 1]
    (tmp_path / "scan.json").write_text("{}")
    assert scan(*twice)[1] == 2


def test_a_report_of_another_model_than_was_there_leaves_no_mark(scan: Run, verb: Run, scan_report: ScanReport, tmp_path: Path) -> None:
    """Somebody exchanged the model while the run was at work, and puts it back."""
    seen = verb("scan", scan_report)
    scan()
    assert not (tmp_path / "scan.json.done").exists()
    scan()
    assert len(seen) == 2


def test_a_model_that_cannot_be_read_is_told_by_the_run(scan: Run, tmp_path: Path) -> None:
    (tmp_path / "m" / "model_index.json").unlink()
    assert [scan()[1], scan()[1]] == [1, 2]
    assert not (tmp_path / "scan.json.done").exists()


def test_it_needs_a_report_and_no_stdout(bdaudit: Run, tiny_model: Path, tmp_path: Path) -> None:
    assert "give --report FILE" in bdaudit("scan", tiny_model, "--once").last
    ended = bdaudit("scan", tiny_model, "--once", "--json", "--report", tmp_path / "a.json")
    assert (ended.code, "drop --json or --format" in ended.last) == (2, True)
