"""What a scan shows of its candidates."""

from __future__ import annotations

from dataclasses import replace

from bdaudit.records import SIGNALS, ScanReport, SignalRecord
from bdaudit.report.content.blocks import Next
from bdaudit.report.content.scan import CLEAN_SHOWN, FOREMOST, body, candidates


def test_only_clean_candidates_beyond_the_first_are_details(scan_report: ScanReport) -> None:
    (table,) = candidates(scan_report.candidates)
    assert len(table.rows) == 41
    assert sorted(table.details) == list(range(11 + CLEAN_SHOWN, 41))
    (few,) = candidates(scan_report.candidates[: 11 + CLEAN_SHOWN])
    assert not few.details


def test_all_signals_but_the_foremost_are_details_in_their_order_and_unknown_ones_last(scan_report: ScanReport) -> None:
    first, *rest = scan_report.candidates
    score = SignalRecord(value=1.0, score=7.5, p=0.1)
    more = dict.fromkeys(("exposed: unet", "path shift", "attention share"), score)
    (table,) = candidates([replace(first, signals={**first.signals, **more}), *rest])
    shown = {column.title: column.shown for column in table.columns}
    foremost = SIGNALS[:FOREMOST]
    assert foremost == ("noise shift", "context shift", "common shift", "override")
    assert {name: shown[name] for name in (*foremost, *more)} == dict.fromkeys(foremost, "where wide") | dict.fromkeys(more, "in detail")
    assert [column.title for column in table.columns][-3:] == ["attention share", "path shift", "exposed: unet"]
    assert [row[-1].lines[0] for row in table.rows[:2]] == ["7.5", "not measured"]
    (bare,) = candidates(scan_report.candidates)
    assert not {"path shift", "attention share"} & {column.title for column in bare.columns}, "what nobody measured has no column"


def test_candidates_stand_by_rank_with_their_readings_below(scan_report: ScanReport) -> None:
    last, *others = scan_report.candidates
    report = replace(scan_report, candidates=(replace(last, rank=99, same_as="b", reading="as a code", variant="fp16"), *others))
    (table,) = [block for block in body(report) if getattr(block, "title", "") == "Candidates"]
    assert [row[0].lines[0] for row in table.rows][-2:] == ["41", "99"]  # type: ignore[union-attr]
    assert table.rows[-1][1].lines[1:] == ("(same tokens as b)", "(as a code)", "(on the fp16 weights)")  # type: ignore[union-attr]


def test_ids_stand_by_reader_where_readers_read_differently(scan_report: ScanReport) -> None:
    first, second, third, *others = scan_report.candidates
    apart = {"text_encoder": (1, 2), "text_encoder_2": (1, 2), "text_encoder_3": tuple(range(9)), "last": ()}
    read = replace(first, token_ids=(1, 2), reader_ids=apart), replace(second, reader_ids={"text_encoder": second.token_ids})
    (table,) = candidates([*read, third, *others])
    at = [column.title for column in table.columns].index("token ids")
    assert table.rows[0][at].lines == ("text_encoder, text_encoder_2: 1 2", "text_encoder_3: 0 1 2 3 4 5 6 7 … +1", "last: nothing")
    assert [len(row[at].lines) for row in table.rows[1:3]] == [1, 1]


def test_every_finding_has_its_command_after_it(scan_report: ScanReport) -> None:
    assert sum(isinstance(block, Next) for block in body(scan_report)) == 11
    silent = replace(scan_report, candidates=tuple(replace(item, command="") for item in scan_report.candidates))
    assert not any(isinstance(block, Next) for block in body(silent))
