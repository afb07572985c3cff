"""Folders that may hold anything."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

import pytest

from bdaudit.errors import ExitCode, UsageError
from bdaudit.records import ScanReport
from bdaudit.report.document import dumps
from bdaudit.report.fleet import read
from bdaudit.report.fleet.read import read_reports
from tests.report.fleet.reports import clean, scan, write


def test_reports_are_found_wherever_they_lie_the_worst_first(scan_report: ScanReport, tmp_path: Path) -> None:
    write(clean(scan_report, "good"), tmp_path / "a" / "scan.json")
    write(scan(scan_report, "bad", ("t", 0.001, "backdoored"), code=ExitCode.FINDING), tmp_path / "b" / "c" / "scan.JSON")
    write(scan(scan_report, "a weak one", ("t", 0.009, "backdoored"), code=ExitCode.FINDING), tmp_path / "weak.json")
    write(clean(scan_report, "kept figures"), tmp_path / "a" / "verify.state" / "kept.json")
    (tmp_path / "config.json").write_text("{}")
    found = read_reports([tmp_path, tmp_path / "a"])
    assert [each.model for each in found.entries] == ["bad", "a weak one", "good"], "and one that lies below two folders once"
    assert (found.not_read, found.other) == ((), 1)


def test_what_cannot_be_read_is_told_and_costs_nothing_else(scan_report: ScanReport, tmp_path: Path) -> None:
    whole = dumps(clean(scan_report, "good"))
    damaged = {
        "cut": (whole[: len(whole) // 2], "not valid JSON"), "nan": (whole.replace('"alpha": 0.01', '"alpha": NaN'), "NaN is no figure"),
        "deep": ('{"command": "scan", "x": ' + "[" * 5000 + "]" * 5000 + "}", "too deep|more than 64 deep"),
        "twice": ('{"command": "scan", "command": "scan"}', "a key occurs twice"), "empty": ("", "not valid JSON"),
        "begun": ("{", "not valid JSON"), "a little more": ('{"comm', "not valid JSON"),
        "inf": (whole.replace('"alpha": 0.01', '"alpha": 1e999'), "is no figure"),
        "other": (whole.replace('"schema_version": "1.', '"schema_version": "7.'), "schema_version"),
    }  # fmt: skip
    for name, (text, _) in damaged.items():
        (tmp_path / f"{name}.json").write_text(text)
    write(clean(scan_report, "good"), tmp_path / "good.json")
    for name, text in (("nothing", "{}"), ("settings", '{"a": 1}'), ("list", "[]")):
        (tmp_path / f"{name}.json").write_text(text)
    os.symlink(tmp_path / "good.json", tmp_path / "link.json")
    (tmp_path / "elsewhere.state").mkdir()
    os.symlink(tmp_path / "elsewhere.state", tmp_path / "folder")
    os.mkfifo(tmp_path / "pipe.json")
    found = read_reports([tmp_path])
    said = {Path(each.file).stem: each.reason for each in found.not_read}
    assert set(said) == {*damaged, "link", "pipe", "folder"}
    assert found.other == 3
    for name, (_, why) in damaged.items():
        assert any(part in said[name] for part in why.split("|")), said[name]
    assert "it is a link, which is not followed" in said["link"]
    assert "it is a link, which is not followed" in said["folder"]
    assert [each.model for each in found.entries] == ["good"]


@pytest.mark.parametrize("more", [0, 1])
def test_a_report_is_as_large_as_every_other_may_be(scan_report: ScanReport, tmp_path: Path, more: int) -> None:
    data = dumps(clean(scan_report, "good")).encode()
    (tmp_path / "a.json").write_bytes(data)
    with mock.patch.object(read, "MAX_BYTES", len(data) - more):
        found = read_reports([tmp_path])
    assert (len(found.entries), len(found.not_read)) == (1 - more, more)


def test_as_many_files_and_as_deep_as_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (read.MOST_FILES, read.DEEPEST) == (500_000, 32)
    deepest = tmp_path.joinpath(*"abc")
    deepest.mkdir(parents=True)
    monkeypatch.setattr(read, "DEEPEST", 3)
    assert read_reports([tmp_path]).entries == ()
    monkeypatch.setattr(read, "MOST_FILES", 2)
    with pytest.raises(UsageError, match="more than 2 files"):
        read_reports([tmp_path])
    monkeypatch.setattr(read, "MOST_FILES", 9)
    (deepest / "d").mkdir()
    with pytest.raises(UsageError, match="more than 3 deep"):
        read_reports([tmp_path])


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be listed"):
        read_reports([tmp_path / "missing"])
