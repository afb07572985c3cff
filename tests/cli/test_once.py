"""A command that is run again leaves where nothing has changed, and is run anew where anything has."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bdaudit.errors import ExitCode
from bdaudit.records import Exit, ScanReport

Run = Callable[..., Any]


@pytest.fixture
def scan(bdaudit: Run, verb: Run, scan_report: ScanReport, tiny_model: Path, tmp_path: Path) -> Callable[..., tuple[Any, int]]:
    """``bdaudit scan`` of the small model with --once; how it ended, and how many runs there have been."""
    model = Path(shutil.copytree(tiny_model, tmp_path / "m"))
    (tmp_path / "texts.txt").write_text("a\n")
    seen = verb("scan", scan_report)

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
    seen = verb("scan", replace(scan_report, status=status, exit=Exit.of(ExitCode(code), "said")))
    assert scan()[0].code == code
    assert scan()[0].code == code
    assert len(seen) == runs


def test_a_model_that_cannot_be_read_is_told_by_the_run(scan: Run, tmp_path: Path) -> None:
    (tmp_path / "m" / "model_index.json").unlink()
    assert [scan()[1], scan()[1]] == [1, 2]
    assert not (tmp_path / "scan.json.done").exists()


def test_it_needs_a_report_and_no_stdout(bdaudit: Run, tiny_model: Path, tmp_path: Path) -> None:
    assert "give --report FILE" in bdaudit("scan", tiny_model, "--once").last
    ended = bdaudit("scan", tiny_model, "--once", "--json", "--report", tmp_path / "a.json")
    assert (ended.code, "drop --json" in ended.last) == (2, True)
