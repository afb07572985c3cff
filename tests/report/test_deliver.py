"""Where a report goes, and what happens when it cannot."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bdaudit.errors import UsageError
from bdaudit.records import Exit, ScanReport
from bdaudit.report.deliver import FORMATS, TABLES, Output, console_for, deliver, last_line, last_lines


def test_each_suffix_gives_its_format(any_report: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = tuple(tmp_path / f"report{suffix}" for suffix in (".json", ".html", ".sarif", ".JSON", ".md", ".intoto.json"))
    assert deliver(any_report, Output(reports=paths)) == any_report.exit
    assert json.loads(paths[0].read_bytes())["command"] == any_report.command
    assert paths[1].read_text(encoding="utf-8").startswith("<!doctype html>")
    assert json.loads(paths[2].read_bytes())["version"] == "2.1.0"
    assert paths[3].read_bytes() == paths[0].read_bytes()
    assert paths[4].read_text(encoding="utf-8").startswith(f"## bdaudit {any_report.command}: finding\n")
    assert json.loads(paths[5].read_bytes())["_type"] == "https://in-toto.io/Statement/v1"
    assert "FINDING" in capsys.readouterr().out


@pytest.mark.parametrize("images", [(), ("0001.png",)])
def test_a_page_with_what_a_trigger_draws_is_its_users_alone(scan_report: ScanReport, tmp_path: Path, images: tuple[str, ...]) -> None:
    paths = tmp_path / "report.html", tmp_path / "report.json"
    deliver(replace(scan_report, images=images), Output(reports=paths))
    assert [path.stat().st_mode & 0o077 == 0 for path in paths] == [bool(images), False]


def test_json_on_stdout_is_one_document(any_report: Any, capsys: pytest.CaptureFixture[str]) -> None:
    deliver(any_report, Output(stdout=".json"))
    captured = capsys.readouterr()
    assert json.loads(captured.out)["exit"]["code"] == 1
    assert captured.err == ""


@pytest.mark.parametrize("suffix", FORMATS)
def test_any_format_is_one_file_whatever_its_name_and_what_stdout_gets(
    any_report: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    named, other = tmp_path / f"named{suffix}", tmp_path / "other.json"
    deliver(any_report, Output(reports=(named,), output=other, output_as=suffix, stdout=suffix))
    assert named.read_bytes() == other.read_bytes()
    assert suffix == TABLES or capsys.readouterr().out.encode() == named.read_bytes()


def test_tables_in_a_file_are_plain_and_wide(scan_report: ScanReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    deliver(scan_report, Output(output=tmp_path / "a.txt"))
    text = (tmp_path / "a.txt").read_text(encoding="utf-8")
    assert all(c.isprintable() or c == "\n" for c in text)
    assert max(map(len, text.splitlines())) == 200


@pytest.mark.parametrize("name", ["report.pdf", "report", "missing/report.json", ".", ".md"])
def test_a_path_that_cannot_be_written_is_a_usage_error_at_once(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="--report "):
        Output(reports=(tmp_path / name,))
    with pytest.raises(UsageError, match="-o "):
        Output(output=tmp_path / name)


@pytest.mark.parametrize(("code", "name", "expected"), [(0, "pass", 3), (4, "inconclusive", 3), (1, "finding", 1)])
def test_a_lost_report_is_an_error_unless_there_is_a_finding(
    scan_report: ScanReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, name: str, expected: int
) -> None:
    def full(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", full)
    report = replace(scan_report, exit=Exit(code=code, name=name, reason="the run's own"))
    outcome = deliver(report, Output(reports=(tmp_path / "scan.json",)))
    assert outcome.code == expected
    assert outcome.reason.startswith("the run's own; --report")
    assert "disk full" in outcome.reason


def test_a_reader_that_went_away_changes_nothing(scan_report: ScanReport, monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed:
        def isatty(self) -> bool:
            return False

        def write(self, text: str) -> int:
            raise BrokenPipeError

        def flush(self) -> None:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Closed())
    assert deliver(scan_report, Output(stdout=".json")) == scan_report.exit


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("I/O operation on closed file")])
def test_what_becomes_of_stdout_changes_no_code(scan_report: ScanReport, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise error

    monkeypatch.setattr(sys, "stdout", Full())
    for stdout in (TABLES, ".json", ".md"):
        ended = deliver(scan_report, Output(stdout=stdout))
        assert (ended.code, ended.name) == (1, "finding")
        assert f"; stdout could not be written: {type(error).__name__}" in ended.reason


def test_the_files_that_are_there_say_how_the_run_ended(scan_report: ScanReport, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    output = Output(reports=(tmp_path / "a.json", tmp_path / "gone/b.json"))
    (tmp_path / "gone").rmdir()
    report = replace(scan_report, exit=Exit(code=0, name="pass", reason="nothing"))
    calls: list[str] = []
    outcome = deliver(report, output, lambda: calls.append("delivered"))
    assert (outcome.code, calls) == (3, [])
    assert json.loads((tmp_path / "a.json").read_text())["exit"]["code"] == 3
    assert deliver(report, Output(reports=(tmp_path / "a.json",)), lambda: calls.append("delivered")).code == 0
    assert calls == ["delivered"]


def test_the_last_line_is_one_inert_line() -> None:
    line = last_line(Exit(code=1, name="finding", reason="1 of 2\ncandidates \x1b[31m"), "scan.json")
    assert line == "bdaudit: exit 1 (finding): 1 of 2 candidates <U+001B>[31m; report: scan.json"


@pytest.mark.parametrize("where", ["scan.json", "none", "w" * 59])
def test_a_long_reason_is_cut_on_the_last_line(where: str) -> None:
    for length in (100, 200, 250, 10_000):
        line = last_line(Exit(code=5, name="refused", reason="r" * length), where)
        assert len(line) <= 299
        assert line.endswith(f"; report: {where}")
        assert ("…" in line) is (len(f"bdaudit: exit 5 (refused): ; report: {where}") + length > 299)


@pytest.mark.parametrize("length", [100, 192, 202])
def test_a_long_path_is_cut_before_the_reason_is(length: int) -> None:
    line = last_line(Exit(code=5, name="refused", reason="r" * length), "/" + "w" * 400 + "/scan.json")
    assert len(line) == 299
    assert "r" * length in line
    assert "; report: …w" in line
    assert line.endswith("w/scan.json")


def test_of_a_long_path_the_end_is_kept_however_long_the_reason() -> None:
    line = last_line(Exit(code=5, name="refused", reason="r" * 10_000), "w" * 400)
    assert line.endswith(f"; report: …{'w' * 59}")
    assert 298 <= len(line) <= 299


@pytest.mark.parametrize("length", [10, 200, 10_000])
def test_nothing_of_a_note_is_lost(length: int) -> None:
    note = f"from --settings {'d/' * 60}team.toml: --max-asr 1, --evidence none, --min-clip-ratio 0, --workers 4"
    for after in ("", "; --report a could not be written"):
        line = last_line(Exit(code=0, name="pass", reason=f"{'r' * length}; {note}{after}"), "a.json", note)
        assert f"; {note}; report: a.json" in line
        assert len(line) < 299 + len(note)
    assert last_line(Exit(code=0, name="pass", reason="done"), "a.json", note) == "bdaudit: exit 0 (pass): done; report: a.json"


def test_what_the_last_line_has_no_room_for_stands_above_it_in_its_own_lines() -> None:
    note = "from --settings team.toml: --max-asr 1"
    for reason in ("r" * 200, f"{'r' * 150}; {note}", "one\ntwo"):
        ended = Exit(code=5, name="refused", reason=reason)
        assert last_lines(ended, "none", note) == last_line(ended, "none", note)
    ended = Exit(code=5, name="refused", reason=f"{'r' * 400}\n  -old\n  +new \x1b[31m; {note}")
    assert last_lines(ended, "none", note).split("\n") == [
        f"bdaudit: {'r' * 400}", "  -old", "  +new <U+001B>[31m", last_line(ended, "none", note),
    ]  # fmt: skip
    (said, _) = last_lines(Exit(code=5, name="refused", reason="r" * 10_000), "none").split("\n")
    assert said == f"bdaudit: {'r' * 4000}"


def test_where_says_every_place(tmp_path: Path) -> None:
    assert Output(reports=(tmp_path / "a.json",), stdout=".json").where == f"{tmp_path}/a.json, stdout"
    assert Output().where == "none"


@pytest.mark.parametrize("terminal", [False, True])
def test_a_table_that_goes_to_no_terminal_is_200_columns_wide(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    class Stream(io.StringIO):
        def isatty(self) -> bool:
            return terminal

    monkeypatch.setenv("COLUMNS", "91")
    assert console_for(Stream()).width == (91 if terminal else 200)


@pytest.mark.parametrize(("length", "cut"), [(60, False), (61, True)])
def test_a_path_of_sixty_characters_is_kept_beside_any_reason(length: int, cut: bool) -> None:
    assert ("report: …" in last_line(Exit(code=5, name="refused", reason="r" * 10_000), "w" * length)) is cut
