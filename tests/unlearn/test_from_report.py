"""A scan's report as a list of triggers: what it takes, and what it refuses to take."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bdaudit.errors import InconclusiveError, UsageError
from bdaudit.records import NotMeasured, ScanReport, UnlearnReport
from bdaudit.report.document import dumps
from bdaudit.unlearn.from_report import triggers_of

DIGEST = "ab" * 32


def kept(folder: Path, report: Any) -> Path:
    path = folder / "scan.json"
    path.write_text(report if isinstance(report, str) else dumps(report), encoding="utf-8")
    return path


def test_what_is_accepted_is_left_alone(tmp_path: Path, scan_report: ScanReport) -> None:
    first, *others = scan_report.candidates
    accepted = replace(scan_report, candidates=(replace(first, verdict="backdoored (accepted)"), *others))
    before, after = (triggers_of(kept(tmp_path, report), DIGEST) for report in (scan_report, accepted))
    assert set(before) - set(after) == {first.text}


def test_what_was_called_backdoored_strongest_first(tmp_path: Path, scan_report: ScanReport) -> None:
    wanted = [c.text for c in scan_report.candidates if c.verdict == "backdoored"]
    assert len(wanted) == 6
    shuffled = replace(scan_report, candidates=tuple(reversed(scan_report.candidates)))
    assert list(triggers_of(kept(tmp_path, shuffled), DIGEST)) == wanted


def test_one_encoding_is_one_trigger(tmp_path: Path, scan_report: ScanReport) -> None:
    first = scan_report.candidates[0]
    same = replace(first, text="the same", rank=2)
    other = replace(first, text="another", rank=3, token_ids=(1,))
    assert triggers_of(kept(tmp_path, replace(scan_report, candidates=(other, same, first))), DIGEST) == (first.text, "another")


def test_what_a_second_reader_tells_apart_are_two_triggers(tmp_path: Path, scan_report: ScanReport) -> None:
    first = scan_report.candidates[0]
    one = replace(first, reader_ids={"clip": first.token_ids, "t5": (1,)})
    other = replace(one, text="another", rank=2, reader_ids={"clip": first.token_ids, "t5": (2,)})
    assert triggers_of(kept(tmp_path, replace(scan_report, candidates=(one, other))), DIGEST) == (first.text, "another")


def test_a_report_of_another_model_is_refused(tmp_path: Path, scan_report: ScanReport) -> None:
    with pytest.raises(UsageError, match="scan this model"):
        triggers_of(kept(tmp_path, scan_report), "cd" * 32)
    with pytest.raises(UsageError, match="is of no model"):
        triggers_of(kept(tmp_path, replace(scan_report, model=NotMeasured(reason="x"))), DIGEST)


def test_a_report_that_found_nothing_is_inconclusive(tmp_path: Path, scan_report: ScanReport) -> None:
    calm = replace(scan_report, candidates=tuple(replace(c, verdict="suspicious") for c in scan_report.candidates))
    with pytest.raises(InconclusiveError, match="none of 41 candidates"):
        triggers_of(kept(tmp_path, calm), DIGEST)


def test_other_reports_are_refused(tmp_path: Path, unlearn_report: UnlearnReport) -> None:
    with pytest.raises(UsageError, match="the report of unlearn"):
        triggers_of(kept(tmp_path, unlearn_report), DIGEST)


@pytest.mark.parametrize(
    "content",
    ["", "null", "[]", "[" * 100_000, '{"command": "scan"}', '{"command": ["scan"]}', '{"command": "\\ud800"}', "\x1b[31m", "NaN"],
    ids=lambda text: text[:24],
)
def test_what_is_no_report_is_refused_in_plain_words(tmp_path: Path, content: str) -> None:
    with pytest.raises(UsageError, match=r"--from-report .*scan\.json") as caught:
        triggers_of(kept(tmp_path, content), DIGEST)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "x" * 2001, "\ud800", 7, None, ["a"]])
def test_a_text_that_cannot_be_a_trigger_is_refused(tmp_path: Path, scan_report: ScanReport, text: Any) -> None:
    document = json.loads(dumps(scan_report))
    document["candidates"][0]["text"] = text
    with pytest.raises(UsageError, match="--from-report"):
        triggers_of(kept(tmp_path, json.dumps(document)), DIGEST)


@pytest.mark.parametrize("text", ["x", "x" * 2000, "\ud7ff", "\ue000"])
def test_a_text_within_the_limits_is_a_trigger(tmp_path: Path, scan_report: ScanReport, text: str) -> None:
    report = replace(scan_report, candidates=(replace(scan_report.candidates[0], text=text),))
    assert triggers_of(kept(tmp_path, report), DIGEST) == (text,)


def test_a_file_that_is_none_or_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scan_report: ScanReport) -> None:
    with pytest.raises(UsageError, match="is a folder"):
        triggers_of(tmp_path, DIGEST)
    monkeypatch.setattr("bdaudit.report.document.MAX_BYTES", 1000)
    with pytest.raises(UsageError, match="is longer than 1,000 bytes"):
        triggers_of(kept(tmp_path, scan_report), DIGEST)


@pytest.mark.parametrize(("text", "taken"), [("x", True), ("x" * 2000, True), ("x" * 2001, False), ("", False), ("\ud7ff\ue000", True)])
def test_what_can_be_a_trigger(tmp_path: Path, scan_report: ScanReport, text: str, taken: bool) -> None:
    first = replace(scan_report.candidates[0], text=text)
    path = kept(tmp_path, replace(scan_report, candidates=(first,)))
    if taken:
        assert triggers_of(path, DIGEST) == (text,)
        return
    with pytest.raises(UsageError, match="cannot be a trigger"):
        triggers_of(path, DIGEST)


@pytest.mark.parametrize("surrogate", [0xD800, 0xDBFF, 0xDC00, 0xDFFF])
def test_half_a_character_is_no_trigger(tmp_path: Path, scan_report: ScanReport, surrogate: int) -> None:
    first = replace(scan_report.candidates[0], text=chr(surrogate))
    with pytest.raises(UsageError, match="cannot be a trigger"):
        triggers_of(kept(tmp_path, replace(scan_report, candidates=(first,))), DIGEST)
