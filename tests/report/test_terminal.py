"""What a terminal shows: everything, inert, and not cut when piped."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from bdaudit.records import (
    AcceptanceRecord,
    Check,
    EvidenceRecord,
    Localisation,
    Metric,
    NotMeasured,
    PromptRecord,
    RecoveryRecord,
    RoundRecord,
    ScanReport,
    SwapRecord,
    SweepRecord,
    UnlearnReport,
    VerifyReport,
)
from bdaudit.report.content.blocks import Column, Table, tables
from bdaudit.report.content.plots import ranking
from bdaudit.report.content.scan import candidates
from bdaudit.report.content.verify import bar
from bdaudit.report.content.whole import content
from bdaudit.report.deliver import Output, console_for, deliver
from bdaudit.report.terminal import FULL, NARROWEST, ByWidth, Characters, renderable


def rendered(report: Any) -> str:
    stream = io.StringIO()
    console_for(stream).print(renderable(content(report)))
    return stream.getvalue()


def test_no_control_bidi_or_zero_width_character_is_printed(any_report: Any) -> None:
    text = rendered(any_report)
    assert all(c.isprintable() or c == "\n" for c in text)
    assert "<U+202E>" in text


def test_markup_is_shown_as_it_is(any_report: Any) -> None:
    assert "[bold]x[/bold][/]" in rendered(any_report)


def test_a_piped_table_is_wider_than_80_and_at_most_200_columns(scan_report: ScanReport) -> None:
    widths = [len(line) for line in rendered(scan_report).splitlines()]
    assert 80 < max(widths) <= 200


def test_a_piped_row_holds_its_candidate_in_full_on_one_line(scan_report: ScanReport) -> None:
    row = next(line for line in rendered(scan_report).splitlines() if "ȏ" in line and "U+020F  " in line)
    for cell in ("11", "character", "49406 11", "-1.5", "12.5", "0.0005", "backdoored"):
        assert cell in row
    assert "…" not in row


@pytest.mark.parametrize(("width", "kind"), [(80, False), (FULL - 1, False), (120, True)])
def test_a_narrow_terminal_gets_fewer_columns_rather_than_broken_ones(scan_report: ScanReport, width: int, kind: bool) -> None:
    console = Console(width=width, record=True, file=io.StringIO())
    (table,) = candidates([c for c in scan_report.candidates if c.text == "ȏ"])
    console.print(ByWidth(table))
    (row,) = [line for line in console.export_text().splitlines() if "U+020F" in line]
    assert "backdoored" in row
    assert ("character" in row) == kind


def test_every_finding_is_listed_and_the_rest_is_counted(scan_report: ScanReport) -> None:
    text = rendered(scan_report)
    assert "and 10 more, all clean" in text
    assert ("word19 " in text, "word20 " in text) == (True, False)


def test_findings_say_what_to_type_next(scan_report: ScanReport) -> None:
    assert "next: bdaudit unlearn models/suspect --trigger ȏ" in rendered(scan_report)


@pytest.mark.parametrize("width", [80, 160])
def test_what_to_type_next_is_one_line_however_narrow_the_terminal(
    scan_report: ScanReport, unlearn_report: UnlearnReport, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    long = "x/" * 60
    first = replace(scan_report.candidates[0], command=f"bdaudit unlearn {long} --trigger x")
    scanned = replace(scan_report, candidates=(first,))
    repaired = replace(unlearn_report, next_command=f"bdaudit verify {long} --reference y")
    monkeypatch.setenv("COLUMNS", str(width))
    for report, line in ((scanned, f"  next: {first.command}"), (repaired, f"  next: {repaired.next_command}")):
        stream = io.StringIO()
        monkeypatch.setattr(stream, "isatty", lambda: True)
        monkeypatch.setattr("sys.stdout", stream)
        deliver(report, Output())
        lines = re.sub(r"\x1b\[[\d;]*m", "", stream.getvalue()).splitlines()
        assert max(cell_len(other) for other in lines if "next: " not in other) <= width
        assert line in [other.rstrip() for other in lines]


def test_unlearn_says_what_to_type_next_where_it_wrote(unlearn_report: UnlearnReport) -> None:
    assert "next: bdaudit verify models/suspect-unlearned --trigger <U+001B>[31mred" in rendered(unlearn_report)
    assert "next: " not in rendered(replace(unlearn_report, out="", next_command=""))


def test_why_figures_were_not_measured_is_said_once_below_their_table(verify_report: VerifyReport, hostile: tuple[str, ...]) -> None:
    none, other = NotMeasured(reason=f"fetch {hostile[0]}"), NotMeasured(reason="no reference")
    metrics = {name: Metric(value=none, reference=other, detail="") for name in ("clip score", "diversity")}
    checks = tuple(Check(name=name, status="not measured", value=none, bound="≥ 1", reason=none.reason) for name in metrics)
    attacks = tuple(replace(a, rate=none, floor=none, reference=none, p=none) for a in verify_report.attacks)
    told = rendered(replace(verify_report, metrics=metrics, checks=(*checks, replace(checks[0], reason="alone")), attacks=attacks))
    assert told.count("fetch <U+001B>[31mred") == 3, "once for each table"
    assert told.count("[1] fetch <U+001B>[31mred") == 3
    assert told.count("[2] no reference") == 1
    assert sum("not measured [1]" in line and "not measured [2]" in line for line in told.splitlines()) == 2
    assert told.count("alone") == 1
    assert "not measured [" not in rendered(replace(verify_report, attacks=()))


def test_the_headline_limits_and_coverage_are_there(any_report: Any) -> None:
    text = rendered(any_report)
    assert "FINDING:" in text
    assert "no proof of absence" in text
    assert "3 asked, 2 tested, 1 skipped" in text
    assert "batch size 32 (asked: 64" in text


def test_unlearn_says_before_after_and_where(unlearn_report: UnlearnReport) -> None:
    text = rendered(unlearn_report)
    assert "0.95 (0.855 to 1, n = 200)" in text
    assert "models/suspect-unlearned" in text
    assert "nothing was written" in rendered(replace(unlearn_report, out=""))


def test_a_merge_says_what_is_in_it_of_each_contributor(unlearn_report: UnlearnReport) -> None:
    text = " ".join(rendered(unlearn_report).split())
    assert "Contributors" in text
    assert "1.25 none 0.75" in text
    assert "Contributors" not in rendered(replace(unlearn_report, merged=()))
    unnamed = replace(unlearn_report.merged[0], backdoor="")
    assert "no trigger was named" in " ".join(rendered(replace(unlearn_report, merged=(unnamed,))).split())


def test_verify_says_the_rate_its_interval_and_why_there_is_no_reference(verify_report: VerifyReport) -> None:
    text = " ".join(rendered(verify_report).split())
    assert "50.0 %" in text
    assert "no --reference" in text
    assert "attack success rate: not measured" in rendered(replace(verify_report, attacks=()))


def test_verify_says_where_the_trigger_stood(verify_report: VerifyReport) -> None:
    assert "positions: prefix 67, middle 67," in " ".join(rendered(verify_report).split())
    nowhere = replace(verify_report, attacks=tuple(replace(a, positions={}) for a in verify_report.attacks))
    assert "positions" not in rendered(nowhere)


@pytest.mark.parametrize("width", [80, 120])
def test_a_bar_is_never_broken(verify_report: VerifyReport, width: int) -> None:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(renderable(content(verify_report)))
    assert bar(verify_report.attacks[0].rate) in console.export_text()


def test_a_scan_tells_which_entries_of_accept_are_of_no_use(scan_report: ScanReport, hostile: tuple[str, ...]) -> None:
    entry = AcceptanceRecord(
        model="*", token_ids=(320, 9), reason=hostile[0], expires="2027-01-31", effect=2.5, outcome="accepted", said="so"
    )  # fmt: skip
    outcomes: list[Any] = ["accepted", "outgrown", "expired", "unused", "another model"]
    shown = rendered(replace(scan_report, acceptances=tuple(replace(entry, outcome=outcome) for outcome in outcomes)))
    assert [outcome for outcome in outcomes if f"--accept: {outcome}: token ids 320 9" in shown] == ["outgrown", "expired", "unused"]
    assert "--accept: 1 of 5 entries are of other models" in shown
    assert "\x1b" not in shown


def test_a_finding_is_told_with_the_entry_that_would_accept_it(scan_report: ScanReport) -> None:
    first, *others = scan_report.candidates
    shown = rendered(replace(scan_report, candidates=(replace(first, accept_entry='{"model": "*"}'), *others)))
    assert shown.count('  to accept it, with your reason, in --accept FILE: {"model": "*"}\n') == 1
    assert "to accept it" not in rendered(scan_report)


def test_a_scan_tells_what_it_swept_and_what_carries_a_prompt(scan_report: ScanReport, hostile: tuple[str, ...]) -> None:
    sweep = SweepRecord(
        name="vocabulary", swept=4000, adjusted_for=4000, survivors=48, forward_passes=12_000,
        rounds=(RoundRecord(texts=4000, passes=2, kept=500), RoundRecord(texts=500, passes=8, kept=48)),
    )  # fmt: skip
    place = Localisation(where="text encoder", swaps={"text encoder": SwapRecord(left=0.02, brought=0.97)})
    first = replace(scan_report.candidates[0], localisation=place, adapter="comes with the adapter", word_like="so does a word")
    prompts = (PromptRecord(prompt=f"a {hostile[0]}", carriers=(hostile[0],), sets=9), PromptRecord(prompt="b", carriers=(), sets=1))
    assert "recovery" not in rendered(scan_report)
    soft = RecoveryRecord(
        choices=16, gradients=99, soft_pull=12.5, text_pull=10.0, text=hostile[0], strongest_entry=2.5, drawn=64, named_pull=8.0,
        limit=6.0, verdict="suspicious",
    )  # fmt: skip
    report = replace(scan_report, sweeps=(sweep,), prompts=prompts, recovery=soft, candidates=(first, *scan_report.candidates[1:]))
    shown = " ".join(rendered(report).split())
    assert "4,000 at 2 passes each, then 500 at 8 passes each; 48 measured in full; p adjusted for 4,000 texts" in shown
    assert "lives in: text encoder (effect left without it / brought by it alone: text encoder 2 % / 97 %); comes with the adapter" in shown
    assert "comes with the adapter; so does a word" in shown
    assert "carried by" in shown
    assert "the strongest pulls 12.5 times as far as the median entry" in shown
    assert "named pull 8, limit 6: the model as a whole is suspicious" in shown
    assert "nothing in it fires" in shown
    assert not any(c in shown for c in "\x1b\u202e\u200b")


def test_the_rate_before_stands_beside_the_one_now_and_what_it_rests_on_below(verify_report: VerifyReport) -> None:
    rate = verify_report.attacks[0].rate
    shown = EvidenceRecord(kind="before", holds=True, reason="it works on --before", rate=rate, floor=rate, p=0.001)
    report = replace(verify_report, attacks=(replace(verify_report.attacks[0], evidence=shown),), says_of_itself="made from x")
    text = " ".join(rendered(report).split())
    assert "before" in text
    assert "it works on --before" in text
    assert "made from x" in text
    assert "nothing shows that this text was ever a trigger" in " ".join(rendered(verify_report).split())


def test_a_candidate_of_several_sets_of_weights_says_which(scan_report: ScanReport) -> None:
    first, second, *_ = scan_report.candidates
    text = " ".join(rendered(replace(scan_report, candidates=(replace(first, variant="fp16"), second))).split())
    assert text.count("(on the fp16 weights)") == 1
    assert "weights)" not in " ".join(rendered(scan_report).split())


def table(*columns: Column, details: tuple[int, ...] = ()) -> Table:
    rows = [[f"{column.title} {row}" for column in columns] for row in range(3)]
    return tables("T", columns, rows, details, "all odd")[0]


def shown(block: Table, scan_report: ScanReport) -> str:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(renderable(replace(content(scan_report), body=(block,))))
    return console.export_text()


def test_details_are_counted_and_not_shown(scan_report: ScanReport) -> None:
    text = shown(table(Column("a"), Column("b", shown="in detail"), details=(1, 2)), scan_report)
    assert ("a 0" in text, "a 1" in text, "b 0" in text) == (True, False, False)
    assert "… and 2 more, all odd; --report FILE.html or FILE.json lists every one" in text
    assert "… and" not in shown(table(Column("a")), scan_report)


def test_a_table_of_details_alone_is_not_shown(scan_report: ScanReport) -> None:
    text = shown(table(Column("a", shown="in detail")), scan_report)
    assert ("a 0" in text, " T" in text) == (False, False)


@pytest.mark.parametrize(("width", "there"), [(NARROWEST, False), (NARROWEST + 15, True), (80, True), (200, True)])
def test_the_ranking_is_drawn_where_there_is_room(scan_report: ScanReport, width: int, there: bool) -> None:
    console = Console(width=width, record=True, file=io.StringIO())
    (plot,) = ranking(scan_report.candidates, scan_report.calibration)
    console.print(Characters(plot))
    rows = [line.partition("│")[2] for line in console.export_text(clear=False).splitlines() if "│" in line]
    assert bool(rows) is there
    if there:
        assert (rows[0].strip()[:1], rows[0].index("▲")) == ("▲", 1), "the first stands highest, and leftmost"
        assert sum("┄" in row for row in rows) == 1
        assert "●" in rows[-1]
        assert all(len(row) <= 88 for row in rows)
        assert all(len(line) <= width for line in console.export_text(clear=False).splitlines())


def test_the_legend_of_the_ranking_is_in_words(scan_report: ScanReport) -> None:
    text = " ".join(rendered(scan_report).split())
    assert "▲ backdoored ■ suspicious, or let through ● clean ┄ 99 % of harmless texts lie below this line" in text


@pytest.mark.parametrize(("value", "coloured"), [("1", False), ("", True)])
def test_no_color_is_honoured(scan_report: ScanReport, monkeypatch: pytest.MonkeyPatch, value: str, coloured: bool) -> None:
    monkeypatch.setenv("NO_COLOR", value)
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    console_for(stream).print(renderable(content(scan_report)))
    assert bool(re.search(r"\x1b\[(\d;)*3[0-7]", stream.getvalue())) is coloured
