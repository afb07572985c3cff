"""What a scan shows of its candidates."""

from __future__ import annotations

from dataclasses import replace

from bdaudit.records import DECIDING, ScanReport, SignalRecord
from bdaudit.report.content.blocks import Next
from bdaudit.report.content.scan import CLEAN_SHOWN, body, candidates


def test_only_clean_candidates_beyond_the_first_are_details(scan_report: ScanReport) -> None:
    (table,) = candidates(scan_report.candidates)
    assert len(table.rows) == 41
    assert sorted(table.details) == list(range(11 + CLEAN_SHOWN, 41))
    (few,) = candidates(scan_report.candidates[: 11 + CLEAN_SHOWN])
    assert not few.details


def test_signals_that_do_not_decide_are_details(scan_report: ScanReport) -> None:
    first, *rest = scan_report.candidates
    other = replace(first, signals={**first.signals, "attention": SignalRecord(value=1.0, score=7.5, p=0.1)})
    (table,) = candidates([other, *rest])
    shown = {column.title: column.shown for column in table.columns}
    assert {name: shown[name] for name in (*DECIDING, "attention")} == dict.fromkeys(DECIDING, "where wide") | {"attention": "in detail"}
    assert [row[-1].lines[0] for row in table.rows[:2]] == ["7.5", "not measured"]


def test_candidates_stand_by_rank_with_their_readings_below(scan_report: ScanReport) -> None:
    last, *others = scan_report.candidates
    report = replace(scan_report, candidates=(replace(last, rank=99, same_as="b", reading="as a code", variant="fp16"), *others))
    (table,) = [block for block in body(report) if getattr(block, "title", "") == "Candidates"]
    assert [row[0].lines[0] for row in table.rows][-2:] == ["41", "99"]  # type: ignore[union-attr]
    assert table.rows[-1][1].lines[1:] == ("(same tokens as b)", "(as a code)", "(on the fp16 weights)")  # type: ignore[union-attr]


def test_every_finding_has_its_command_after_it(scan_report: ScanReport) -> None:
    assert sum(isinstance(block, Next) for block in body(scan_report)) == 11
    silent = replace(scan_report, candidates=tuple(replace(item, command="") for item in scan_report.candidates))
    assert not any(isinstance(block, Next) for block in body(silent))
