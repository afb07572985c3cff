"""A page from the JSON and the pictures alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from PIL import Image

from bdaudit.records import VerifyReport
from bdaudit.report.__main__ import main, rebuild
from bdaudit.report.content.whole import content
from bdaudit.report.deliver import write
from bdaudit.report.page import page, read_pictures


def test_the_page_is_the_one_that_the_run_wrote(any_report: Any, tmp_path: Path) -> None:
    write(any_report, tmp_path / "report.json")
    write(any_report, tmp_path / "first.html")
    assert main([str(tmp_path / "report.json"), str(tmp_path / "again.html")]) == 0
    assert (tmp_path / "again.html").read_bytes() == (tmp_path / "first.html").read_bytes()


@pytest.mark.parametrize("moved", [False, True])
def test_pictures_are_found_where_they_were_or_beside_the_report(verify_report: VerifyReport, tmp_path: Path, moved: bool) -> None:
    evidence = tmp_path / "run" / "verify.pictures" / "trigger-1.png"
    evidence.parent.mkdir(parents=True)
    Image.new("RGB", (4, 4), "red").save(evidence)
    report = replace(verify_report, images=(str(evidence),))
    write(report, tmp_path / "run" / "verify.json")
    shown = content(report)
    expected = page(shown, read_pictures(shown.pictures))
    place = tmp_path / "run"
    if moved:
        place = (tmp_path / "run").rename(tmp_path / "kept")
    rebuild(place / "verify.json", place / "verify.html")
    assert (place / "verify.html").read_text(encoding="utf-8") == expected.replace(str(tmp_path / "run"), str(place))
    assert "data:image/png" in expected


def test_the_other_formats_too(scan_report: Any, tmp_path: Path) -> None:
    write(scan_report, tmp_path / "scan.json")
    assert main([str(tmp_path / "scan.json"), str(tmp_path / "scan.sarif")]) == 0
    assert '"version": "2.1.0"' in (tmp_path / "scan.sarif").read_text()


def test_a_figure_that_is_none_and_an_error_nobody_foresaw(
    scan_report: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(scan_report, tmp_path / "scan.json")
    text = (tmp_path / "scan.json").read_text()
    (tmp_path / "nan.json").write_text(text.replace('"alpha": 0.01', '"alpha": NaN'))
    assert "NaN" in (tmp_path / "nan.json").read_text()
    assert main([str(tmp_path / "nan.json"), str(tmp_path / "scan.html")]) == 2
    capsys.readouterr()
    for error, said in ((ZeroDivisionError("by zero"), "by zero\n"), (MemoryError(), "MemoryError\n")):
        monkeypatch.setattr("bdaudit.report.__main__.write", mock.Mock(side_effect=error))
        assert main([str(tmp_path / "scan.json"), str(tmp_path / "scan.html")]) == 3
        assert capsys.readouterr().err == said


def test_what_is_wrong_is_said_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "no.json").write_text("\x1b[31m{")
    wrong = (["one"], 2), ([str(tmp_path / "no.json"), "x.html"], 2), (["missing.json", "x.html"], 2), (["x.json", "x.pdf"], 2)
    for arguments, code in wrong:
        assert main(arguments) == code
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert said.strip().isprintable()
