"""The entry point: whatever happens outside a run has its exit code and its line."""

from __future__ import annotations

import os
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
    assert 1000 < len(bdaudit("scan").last) < 1200


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
