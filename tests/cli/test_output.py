"""``-o``, ``--format``, ``-q`` and ``-v``: one format a file, one for stdout, and how much stderr is told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bdaudit.errors import BdauditError
from bdaudit.records import ScanReport
from bdaudit.report.document import loads


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_file_is_in_the_format_of_its_ending_or_in_the_one_that_is_named(
    bdaudit: Any, verb: Any, model: Path, scan_report: ScanReport
) -> None:
    verb("scan", scan_report)
    begins = {"html": "<!doctype html>", "sarif": '{\n  "$schema"', "md": "## bdaudit scan", "json": '{\n  "command"', "table": "╭─"}
    for form, first in begins.items():
        ended = bdaudit("scan", model, "--format", form, "-o", f"{form}.any")
        assert Path(f"{form}.any").read_text(encoding="utf-8").startswith(first), form
        assert ended.last.endswith(f"; report: {form}.any")
        assert "FINDING" in ended.out, "stdout has its tables"
        bdaudit("scan", model, "-o", f"r.{form}") if form != "table" else bdaudit("scan", model, "-o", "r.txt")
        assert Path("r.txt" if form == "table" else f"r.{form}").read_text(encoding="utf-8").startswith(first), form


@pytest.mark.parametrize("form", ["json", "sarif", "html", "md"])
def test_without_a_file_the_format_is_that_of_stdout_which_gets_nothing_else(
    bdaudit: Any, verb: Any, model: Path, scan_report: ScanReport, form: str
) -> None:
    def loud(config: Any, progress: Any) -> ScanReport:
        print("a library prints")
        return scan_report

    verb("scan", loud)
    ended = bdaudit("scan", model, "--format", form)
    bdaudit("scan", model, "-o", f"r.{form}")
    written = Path(f"r.{form}").read_text(encoding="utf-8")
    assert ended.out.partition("bdaudit scan")[0] == written.partition("bdaudit scan")[0]
    assert "a library prints" not in ended.out
    assert ended.last.endswith("; report: stdout")
    if form == "json":
        assert replace(loads(ended.out), repeat="") == scan_report


def test_one_file_and_stdout_may_have_two_formats(bdaudit: Any, verb: Any, model: Path, scan_report: ScanReport) -> None:
    verb("scan", scan_report)
    ended = bdaudit("scan", model, "--json", "--format", "md", "-o", "a", "--report", "b.html")
    assert json.loads(ended.out)["command"] == "scan"
    assert Path("a").read_text(encoding="utf-8").startswith("## bdaudit")
    assert Path("b.html").exists()
    assert ended.last.endswith("; report: b.html, a, stdout")


def test_a_report_of_o_is_a_report(bdaudit: Any, verb: Any, model: Path, scan_report: ScanReport, verify_report: Any) -> None:
    seen, checked = verb("scan", scan_report), verb("verify", verify_report)
    bdaudit("scan", model, "-o", "s.json", "--once")
    bdaudit("scan", model, "-o", "s.html", "--pictures", "1")
    bdaudit("verify", model, "-o", "v.html")
    assert [config.state for config in (*seen, *checked)] == [Path("s.state"), Path("s.state"), Path("v.state")]
    assert (seen[1].pictures_to, checked[0].save_images) == (Path("s.pictures"), Path("v.pictures"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-o", "s.pdf"), "-o s.pdf: the suffix says the format; expected one of .json, "),
        (("-o", "s"), "or name one with --format"),
        (("-o", ""), "-o"),
        (("-o", "missing/s.json"), "-o missing/s.json: expected a file in a folder that exists"),
        (("-o", "MODEL/s.json"), "which is never written"),
        (("-o", "tokens.txt", "--candidates", "tokens.txt"), "-o tokens.txt would write over --candidates tokens.txt"),
        (("-o", "s.json", "--report", "s.json"), "are one place"),
        (("--format", "pdf"), "--format"),
        (("--json", "--format", "html"), "--json and --format html both say what stdout gets"),
        (("-q", "-v"), "give one"),
        (("--once", "--format", "md"), "--once"),
    ],
)
def test_what_does_not_go_together_is_exit_2_before_any_work(
    bdaudit: Any, verb: Any, model: Path, arguments: tuple[str, ...], said: str
) -> None:
    seen = verb("scan", RuntimeError("work was done"))
    Path("tokens.txt").write_text("cf\n")
    ended = bdaudit("scan", model, *(each.replace("MODEL", str(model)) for each in arguments))
    assert (ended.code, ended.out, seen) == (2, "", []), ended.err
    assert said in " ".join(ended.err.split())


def test_a_model_is_not_written_to_o(bdaudit: Any, verb: Any, model: Path) -> None:
    seen = verb("unlearn", RuntimeError("work was done"))
    assert (bdaudit("unlearn", model, "--trigger", "cf", "-o", "repaired").code, seen) == (2, [])


# --- how much is told ---------------------------------------------------------------------------


@pytest.fixture
def staged(verb: Any, scan_report: ScanReport) -> None:
    def run(config: Any, progress: Any) -> ScanReport:
        import logging

        for done in range(3):
            progress("probing · fast", done, 2)
        logging.getLogger("bdaudit.scan").info("calibrating on 96")
        logging.getLogger("bdaudit.scan").debug("a detail")
        logging.getLogger("bdaudit.scan").warning("the disk \x1b[31m is full")
        return scan_report

    verb("scan", run)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("-q",), ["warning: the disk <U+001B>[31m is full"]),
        ((), ["inspecting", "calibrating on 96", "warning: the disk"]),
        (
            ("-v",),
            ["inspecting", "probing (2): begins", "probing: done", "calibrating on 96", "a detail", "warning: the disk", "load 1.5 s"],
        ),
    ],
)
def test_how_much_stderr_is_told(bdaudit: Any, staged: None, model: Path, flags: tuple[str, ...], told: list[str]) -> None:
    ended = bdaudit("scan", model, *flags)
    *lines, _ = ended.err.splitlines()
    assert len(lines) == len(told), lines
    for line, words in zip(lines, told, strict=True):
        assert line.startswith("bdaudit: ")
        assert words in line
    assert "calibrating" not in ended.out


def test_a_traceback_comes_with_v_and_the_line_says_so(bdaudit: Any, verb: Any, model: Path) -> None:
    verb("scan", RuntimeError("boom"))
    plain, told = bdaudit("scan", model), bdaudit("scan", model, "--verbose")
    assert ("Traceback" in plain.err, "Traceback" in told.err) == (False, True)
    assert "RuntimeError: boom (-v shows where); report: none" in plain.last
    assert told.last.endswith("RuntimeError: boom; report: none")
    verb("scan", BdauditError("declared"))
    assert "Traceback" not in bdaudit("scan", model, "-v").err


def test_flags_of_one_letter_stand_in_a_file_by_their_long_names(bdaudit: Any, verb: Any, model: Path, scan_report: ScanReport) -> None:
    verb("scan", scan_report)
    Path("s.toml").write_text('quiet = true\noutput = "s.any"\nformat = "md"\n')
    ended = bdaudit("scan", model, "--settings", "s.toml")
    assert len(ended.err.splitlines()) == 1
    assert Path("s.any").read_text(encoding="utf-8").startswith("## bdaudit")
