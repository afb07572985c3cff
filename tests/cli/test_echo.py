"""What a trigger is understood as is said before any work, and a text that could be two is not run at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bdaudit.records import ScanReport, VerifyReport

ZWSP = "bdaudit: trigger <U+200B>: 1 character, U+200B ZERO WIDTH SPACE; "


@pytest.mark.parametrize("written", ["<U+200B>", r"\u200b", "\u200b", r"\N{ZERO WIDTH SPACE}"])
def test_the_trigger_is_echoed_before_the_run(
    bdaudit: Any, verb: Any, tiny_model: Path, verify_report: VerifyReport, written: str, capsys: Any
) -> None:
    before: list[str] = []

    def run(config: Any, progress: Any) -> VerifyReport:
        before.append(capsys.readouterr().err)
        return verify_report

    verb("verify", run)
    ended = bdaudit("verify", tiny_model, "--trigger", written, "--clip", "local-dir:none", "--json")
    assert ZWSP in before[0]
    (record,) = json.loads(ended.out)["understood"]
    assert (record["text"], record["codepoints"]) == ("\u200b", ["U+200B"])
    assert f"token ids {' '.join(map(str, record['token_ids']))})" in before[0]


def test_a_dry_run_says_it_too(bdaudit: Any, tiny_model: Path, tmp_path: Path) -> None:
    ended = bdaudit("unlearn", tiny_model, "--trigger", "<U+200B>", "--out", tmp_path / "out", "--dry-run", "--json")
    assert ended.code == 0
    assert ZWSP in ended.err
    assert json.loads(ended.out)["understood"][0]["names"] == ["U+200B ZERO WIDTH SPACE"]


@pytest.mark.parametrize("written", ["u200b", "U+200B", "&#8203;", "ZERO WIDTH SPACE", r"\\u200b"])
@pytest.mark.parametrize("command", ["verify", "unlearn"])
def test_a_text_that_could_be_two_is_a_wrong_command_line(bdaudit: Any, verb: Any, model: Path, command: str, written: str) -> None:
    seen = verb(command, RuntimeError("not to be run"))
    ended = bdaudit(command, model, "--trigger", written)
    assert (ended.code, seen) == (2, [])
    assert r"'\u200b' for U+200B ZERO WIDTH SPACE, or " in ended.last


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_a_trigger_that_encodes_to_nothing_is_inconclusive_before_any_work(
    bdaudit: Any, verb: Any, tiny_model: Path, dry: tuple[str, ...]
) -> None:
    seen = verb("verify", RuntimeError("not to be run"))
    ended = bdaudit("verify", tiny_model, "--trigger", "cat", "--trigger", " ", *dry)
    assert (ended.code, seen) == (4, [])
    assert "the trigger ' ' encodes to no token of this model" in ended.last


def test_a_list_is_read_both_ways_and_says_so(bdaudit: Any, verb: Any, model: Path, tmp_path: Path, scan_report: ScanReport) -> None:
    (tmp_path / "list.txt").write_text("<U+200B>\ncf\n")
    seen = verb("scan", scan_report)
    ended = bdaudit("scan", model, "--candidates", tmp_path / "list.txt", "--prompt", "a U+200B cat")
    assert seen[0].candidates == ("<U+200B>", "\u200b", "cf")
    assert seen[0].suspected == ("a U+200B cat", "a \u200b cat")
    assert "bdaudit: '<U+003C>U+200B>' is written like a character's code or name (U+200B ZERO WIDTH SPACE)" in ended.err


def test_triggers_of_a_report_are_echoed(
    bdaudit: Any, verb: Any, model: Path, tmp_path: Path, scan_report: ScanReport, unlearn_report: Any
) -> None:
    from bdaudit.report.document import dumps

    (tmp_path / "scan.json").write_text(dumps(scan_report))
    verb("unlearn", unlearn_report)
    ended = bdaudit("unlearn", model, "--from-report", tmp_path / "scan.json", "--out", tmp_path / "out")
    named = [c.text for c in scan_report.candidates if c.verdict == "backdoored"]
    assert named
    assert ended.err.count("bdaudit: trigger ") == len(named)
