"""What an interrupted run says of its state, and a failed one of its reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bdaudit.errors import BdauditError, ExitCode, InconclusiveError, RefusedError, UsageError
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


ENDS = [
    UsageError("--x is wrong, for such a reason"),
    BdauditError("the weights are damaged, for such a reason"),
    RuntimeError("nobody foresaw, for such a reason"),
    InconclusiveError("this family is not supported, for such a reason"),
    RefusedError(["a pickle, for such a reason"]),
    KeyboardInterrupt(),
]


@pytest.mark.parametrize("flags", [(), ("--json",), ("-o", "r.md"), ("--variant", "all")])
@pytest.mark.parametrize("name", ["scan", "unlearn", "verify"])
@pytest.mark.parametrize("error", ENDS, ids=lambda error: type(error).__name__)
def test_a_failed_run_says_its_reason_once(
    bdaudit: Any, verb: Any, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, error: BaseException, flags: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    verb(name, error)
    if name == "unlearn" and "--variant" in flags:
        return
    ended = bdaudit(name, model, *(["--trigger", "cf"] if name == "unlearn" else []), *flags)
    said = "stopped by the user" if isinstance(error, KeyboardInterrupt) else "for such a reason"
    assert ended.code == (130 if isinstance(error, KeyboardInterrupt) else getattr(error, "code", 3))
    assert ended.last.count(said) == 1
    assert ended.err.count(said) == 1
    document = "--json" in flags and not isinstance(error, UsageError)
    assert ended.out.count(said) == int(document)


@pytest.mark.parametrize(("there", "promised"), [(True, False), (False, True)])
def test_a_repair_that_is_whole_is_not_to_be_repeated(
    bdaudit: Any, verb: Any, model: Path, tmp_path: Path, unlearn_report: UnlearnReport, there: bool, promised: bool
) -> None:
    def stopped(config: Any, progress: Any) -> UnlearnReport:
        config.state.mkdir()
        (config.state / "kept-latents.json").write_text("3")
        return replace(unlearn_report, status="interrupted", exit=STOPPED, out=str(config.out) if there else "")

    verb("unlearn", stopped)
    ended = bdaudit("unlearn", model, "--trigger", "cf", "--out", tmp_path / "out")
    assert (f"repeat the command to go on, what was measured is kept in {tmp_path / 'out.state'}" in ended.last) is promised


def test_an_error_on_the_way_keeps_what_was_measured(bdaudit: Any, verb: Any, model: Path, tmp_path: Path) -> None:
    def out_of_memory(config: Any, progress: Any) -> ScanReport:
        config.state.mkdir()
        (config.state / "kept-seed.json").write_text("3")
        raise MemoryError

    verb("scan", out_of_memory)
    ended = bdaudit("scan", model, "--state", tmp_path / "s")
    assert (ended.code, f"repeat the command to go on, what was measured is kept in {tmp_path / 's'}" in ended.last) == (3, True)
