"""What an interrupted run says of its state, and a failed one of its reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bdaudit.errors import BdauditError, ExitCode
from bdaudit.records import Exit, ScanReport, UnlearnReport

STOPPED = Exit.of(ExitCode.INTERRUPTED, "stopped by the user")


def test_an_interrupted_run_says_that_it_goes_on_where_something_is_kept(
    bdaudit: Any, verb: Any, model: Path, tmp_path: Path, scan_report: ScanReport
) -> None:
    def stopped(config: Any, progress: Any) -> ScanReport:
        if config.state is not None:
            config.state.mkdir()
            (config.state / "kept-seed.json").write_text("3")
        return replace(scan_report, status="interrupted", exit=STOPPED)

    verb("scan", stopped)
    ended = bdaudit("scan", model, "--state", tmp_path / "s")
    assert (ended.code, f"repeat the command to go on, what was measured is kept in {tmp_path / 's'}" in ended.last) == (130, True)
    ended = bdaudit("scan", model)
    assert "repeat the command" not in ended.last


def test_one_of_which_nothing_is_kept_does_not_promise_it(
    bdaudit: Any, verb: Any, model: Path, unlearn_report: UnlearnReport, scan_report: ScanReport, tmp_path: Path
) -> None:
    verb("unlearn", replace(unlearn_report, status="interrupted", exit=STOPPED))
    assert bdaudit("unlearn", model, "--trigger", "cf", "--out", tmp_path / "out").last.endswith("stopped by the user; report: none")
    verb("scan", scan_report)
    assert "repeat the command" not in bdaudit("scan", model, "--state", tmp_path / "s").last


@pytest.mark.parametrize("json", [False, True])
def test_a_failed_run_says_its_reason_once(bdaudit: Any, verb: Any, model: Path, json: bool) -> None:
    verb("scan", BdauditError("the weights are damaged"))
    ended = bdaudit("scan", model, *(["--json"] if json else []))
    assert ended.code == ExitCode.ERROR
    assert (ended.out.count("the weights are damaged"), ended.err.count("the weights are damaged")) == (int(json), 1)
