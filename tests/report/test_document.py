"""A report survives JSON, fits its schema, and is written whole or not at all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from bdaudit import targets
from bdaudit.errors import BdauditError, UsageError
from bdaudit.records import NotMeasured, ScanReport
from bdaudit.report import document
from bdaudit.report.safe import one_line
from tests.report.schema import build_schema, shipped_schema


def test_a_round_trip_is_equal(any_report: Any) -> None:
    assert document.loads(document.dumps(any_report)) == any_report


def test_a_round_trip_keeps_what_was_not_measured(scan_report: ScanReport) -> None:
    nothing = NotMeasured(reason="the model was not opened")
    bare = replace(scan_report, model=nothing, environment=nothing, calibration=nothing)
    assert document.loads(document.dumps(bare)) == bare


def test_the_text_is_ascii_and_keeps_the_exact_candidate(scan_report: ScanReport, hostile: tuple[str, ...]) -> None:
    text = document.dumps(scan_report)
    assert text.isascii()
    assert "\x1b" not in text
    assert tuple(item["text"] for item in json.loads(text)["candidates"])[: len(hostile)] == hostile


@pytest.mark.parametrize("figure", [float("nan"), float("inf"), float("-inf")])
def test_a_figure_that_is_none_is_an_error_that_names_it(scan_report: ScanReport, figure: float) -> None:
    first = replace(scan_report.candidates[0], score=figure)
    with pytest.raises(BdauditError, match=r"candidates\[0\]\.score"):
        document.dumps(replace(scan_report, candidates=(first,)))


def test_a_value_that_json_has_not_is_an_error_that_names_it(scan_report: ScanReport) -> None:
    with pytest.raises(BdauditError, match=r"config\.odd is a object"):
        document.dumps(replace(scan_report, config={"odd": object()}))


def test_a_path_in_the_settings_is_written_as_text(scan_report: ScanReport) -> None:
    assert json.loads(document.dumps(replace(scan_report, config={"out": Path("a/b")})))["config"] == {"out": "a/b"}


def test_reports_fit_the_shipped_schema(any_report: Any) -> None:
    validator = jsonschema.Draft202012Validator(shipped_schema())
    validator.validate(json.loads(document.dumps(any_report)))


def test_the_schema_refuses_a_damaged_report_of_its_own_kind(verify_report: Any) -> None:
    damaged = json.loads(document.dumps(verify_report))
    damaged["attacks"][0]["rate"] = None
    assert not jsonschema.Draft202012Validator(shipped_schema()).is_valid(damaged)


def test_a_report_from_before_texts_were_looked_at_in_tiers_still_fits_and_is_read(scan_report: ScanReport) -> None:
    older = json.loads(document.dumps(scan_report)) | {"schema_version": "1.2.0"}
    for candidate in older["candidates"]:
        assert candidate.pop("depth") == "measured"
    assert older["calibration"].pop("smallest_context") == 0.0
    jsonschema.Draft202012Validator(shipped_schema()).validate(older)
    assert document.loads(json.dumps(older)) == replace(scan_report, schema_version="1.2.0")


def test_the_schema_refuses_a_depth_that_there_is_not(scan_report: ScanReport) -> None:
    damaged = json.loads(document.dumps(scan_report))
    damaged["candidates"][0]["depth"] = "guessed"
    assert not jsonschema.Draft202012Validator(shipped_schema()).is_valid(damaged)
    with pytest.raises(UsageError):
        document.loads(json.dumps(damaged))


def test_the_shipped_schema_is_in_step_with_the_records() -> None:
    assert shipped_schema() == build_schema(), "python -m tests.report.schema"


@pytest.mark.parametrize("text", ["not json", "[]", '{"command": "other"}', '{"command": "scan"}', b"\xff"])
def test_what_is_no_report_is_refused(text: str | bytes) -> None:
    with pytest.raises(UsageError):
        document.loads(text)


def test_write_whole_replaces_a_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "scan.json"
    target.write_bytes(b"old")
    targets.write_whole(target, b"new")
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError("disk full")

    target = tmp_path / "scan.json"
    target.write_bytes(b"old")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="disk full"):
        targets.write_whole(target, b"new")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("more", [0, 1])
def test_as_many_bytes_of_a_report_as_are_read(scan_report: ScanReport, tmp_path: Path, more: int) -> None:
    data = document.dumps(scan_report).encode()
    (tmp_path / "x.json").write_bytes(data + b" " * ((64 << 20) - len(data) + more))
    if not more:
        assert document.read_report(tmp_path / "x.json", "--from-report") == scan_report
        return
    with pytest.raises(UsageError, match="longer than 67,108,864 bytes"):
        document.read_report(tmp_path / "x.json", "--from-report")


@pytest.mark.parametrize(("more", "said"), [(0, "this is not a bdaudit report"), (1, "4,000,000")])
def test_as_many_items_of_a_report_as_are_read(more: int, said: str) -> None:
    # one bracket, and a comma between two
    with pytest.raises(UsageError, match=said):
        document.loads(b"[" + b"1," * (4_000_000 - 1 + more) + b"1]")


def test_what_is_wrong_with_a_report_is_told_in_five_hundred_characters(scan_report: ScanReport, tmp_path: Path) -> None:
    damaged = json.loads(document.dumps(scan_report)) | {"candidates": [{}] * 50}
    (tmp_path / "x").write_text(json.dumps(damaged))
    with pytest.raises(UsageError) as raised:
        document.read_report(tmp_path / "x", "--from-report")
    with pytest.raises(UsageError) as whole:
        document.loads(json.dumps(damaged))
    assert str(raised.value) == f"--from-report {tmp_path / 'x'}: {one_line(str(whole.value)[:500])}"
