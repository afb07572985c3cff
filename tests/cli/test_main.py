"""The entry point: whatever happens outside a run has its exit code and its line."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bdaudit import cli
from bdaudit.cli import commands
from bdaudit.records import Exit, ScanReport


def test_a_broken_entry_is_exit_3_and_not_pythons_1(bdaudit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: Any) -> int:
        raise ValueError("broken \u202e")

    monkeypatch.setattr(commands, "app", broken)
    ended = bdaudit("scan")
    assert ended.code == 3
    assert ended.last == "bdaudit: exit 3 (error): ValueError: broken <U+202E> (BDAUDIT_DEBUG=1 shows where); report: none"


@pytest.mark.parametrize("code", [0, None, 1, 2])
def test_an_exit_that_is_not_ours_is_no_pass(bdaudit: Any, monkeypatch: pytest.MonkeyPatch, code: int | None) -> None:
    def leaves(**_: Any) -> int:
        raise SystemExit(code)

    monkeypatch.setattr(commands, "app", leaves)
    ended = bdaudit("scan")
    assert (ended.code, ended.last[:26]) == (3, "bdaudit: exit 3 (error): S")
    monkeypatch.setenv(cli.COMPLETION, "complete_bash")
    assert bdaudit("scan").code == (3 if code else 0), "how Typer ends once it has told a shell its completions"


def test_a_librarys_message_is_cut(bdaudit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def loud(**_: Any) -> int:
        raise ValueError("x" * 100_000)

    monkeypatch.setattr(commands, "app", loud)
    ended = bdaudit("scan")
    whole, last = ended.err.splitlines()
    assert whole == f"bdaudit: ValueError: {'x' * 1000} (BDAUDIT_DEBUG=1 shows where)"
    assert last.startswith("bdaudit: exit 3 (error): ValueError: xxx")
    assert last.endswith("xxx (BDAUDIT_DEBUG=1 shows where); report: none")
    assert len(last) < 300


def test_a_long_usage_error_keeps_its_last_line_short_and_a_short_one_is_said_once(bdaudit: Any, model: Path) -> None:
    ended = bdaudit("scan", model, "--fail-on", "y" * 900)
    assert (ended.code, len(ended.last) < 300) == (2, True)
    assert "y" * 900 in ended.err.splitlines()[-2]
    ended = bdaudit("scan", model, "--fail-on", "y")
    assert ended.err.count("'y' is not one of") == 1


def test_an_interrupt_outside_a_run_is_130(bdaudit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(**_: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "app", stopped)
    assert bdaudit("scan").code == 130


def test_a_hostile_argument_is_inert_in_its_own_error(bdaudit: Any, model: Path) -> None:
    ended = bdaudit("scan", model, "--\x1b[31m\u202e")
    assert ended.code == 2
    assert "\x1b" not in ended.err
    assert "\u202e" not in ended.err


def test_an_argument_that_is_not_utf8_is_exit_2(bdaudit: Any, model: Path) -> None:
    ended = bdaudit("unlearn", model, "--trigger", "\udcff")
    assert (ended.code, ended.out) == (2, "")


@pytest.mark.parametrize("own", ["", "7"])
def test_threads_do_not_wait_in_a_loop_unless_the_user_says_so(
    bdaudit: Any, verb: Any, model: Path, scan_report: ScanReport, monkeypatch: pytest.MonkeyPatch, own: str
) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT")
    if own:
        monkeypatch.setenv("GOMP_SPINCOUNT", own)

    def look(config: Any, progress: Any) -> ScanReport:
        assert os.environ["GOMP_SPINCOUNT"] == (own or cli.SPIN)
        return replace(scan_report, exit=Exit(code=0, name="pass", reason="as asked"))

    verb("scan", look)
    assert bdaudit("scan", model).code == 0


def test_a_run_is_offline(bdaudit: Any, verb: Any, model: Path, scan_report: ScanReport) -> None:
    def look(config: Any, progress: Any) -> ScanReport:
        assert os.environ["HF_HUB_OFFLINE"] == os.environ["TRANSFORMERS_OFFLINE"] == "1"
        return replace(scan_report, exit=Exit(code=0, name="pass", reason="offline"))

    verb("scan", look)
    assert bdaudit("scan", model).code == 0


def test_a_wrong_command_line_shows_the_usage_and_the_help(bdaudit: Any, model: Path) -> None:
    ended = bdaudit("scan", model, "--bad")
    assert ended.code == 2
    assert "Usage: bdaudit scan" in ended.err
    assert "Try 'bdaudit scan --help' for help." in ended.err


def test_an_error_of_the_command_line_that_knows_no_command_is_told_all_the_same(bdaudit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(Exception):  # noqa: N818
        ctx = None

        def format_message(self) -> str:
            return "wrong"

    def refuses(**_: Any) -> int:
        raise Wrong

    monkeypatch.setattr(commands, "app", refuses)
    ended = bdaudit("scan")
    assert (ended.code, ended.err) == (2, "bdaudit: exit 2 (usage): wrong; report: none\n")


def test_what_typer_calls_an_abort_is_the_users(bdaudit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Abort(RuntimeError):  # noqa: N818
        pass

    def stops(**_: Any) -> int:
        raise Abort

    monkeypatch.setattr(commands, "app", stops)
    ended = bdaudit("scan")
    assert (ended.code, ended.last) == (130, "bdaudit: exit 130 (interrupted): stopped by the user; report: none")


@pytest.mark.parametrize(("ended", "why", "code"), [(0, "", 0), (0, "disk full", 3), (1, "disk full", 1), (4, "disk full", 4), (1, "", 1)])
def test_a_pass_that_could_not_be_told_is_an_error_and_a_finding_stays_one(
    bdaudit: Any, monkeypatch: pytest.MonkeyPatch, ended: int, why: str, code: int
) -> None:
    monkeypatch.setattr(commands, "app", lambda **_: ended)
    monkeypatch.setattr(cli, "lost", lambda stream: why)
    left = bdaudit("scan")
    assert left.code == code
    assert left.err.count("stdout could not be written: disk full") == (code == 3)


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGHUP])
def test_what_stops_a_run_is_as_ctrl_c_unless_it_is_ignored(kind: signal.Signals) -> None:
    before = signal.getsignal(kind)
    try:
        signal.signal(kind, signal.SIG_IGN)
        cli._stop_as_ctrl_c()
        assert signal.getsignal(kind) is signal.SIG_IGN
        signal.signal(kind, signal.SIG_DFL)
        other = threading.Thread(target=cli._stop_as_ctrl_c)
        other.start(), other.join()
        assert signal.getsignal(kind) is signal.SIG_DFL, "only the main thread may set one"
        cli._stop_as_ctrl_c()
        assert signal.getsignal(kind) is signal.default_int_handler
    finally:
        signal.signal(kind, before)


@pytest.mark.parametrize(("debug", "shown"), [(None, False), ("", False), ("0", False), ("1", True)])
def test_a_traceback_outside_a_run_is_shown_on_demand(
    bdaudit: Any, monkeypatch: pytest.MonkeyPatch, debug: str | None, shown: bool
) -> None:
    def broken(**_: Any) -> int:
        raise ValueError("broken")

    monkeypatch.setattr(commands, "app", broken)
    if debug is not None:
        monkeypatch.setenv("BDAUDIT_DEBUG", debug)
    ended = bdaudit("scan")
    assert ended.code == 3
    assert ("Traceback" in ended.err) is shown
    assert ("BDAUDIT_DEBUG=1 shows where" in ended.last) is not shown
