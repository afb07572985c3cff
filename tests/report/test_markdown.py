"""Markdown shows every text as it is: no markup, link, picture or HTML of a report's, by a reader of CommonMark and by eye."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from markdown_it import MarkdownIt

from bdaudit.records import NotMeasured, ScanReport, UnlearnReport, VerifyReport
from bdaudit.report.content.whole import content
from bdaudit.report.markdown import MOST_ROWS, escaped, markdown
from bdaudit.report.safe import inert

HOSTILE = (
    "[click](https://example.org)", "![x](https://example.org/x.png)", "<img src=x onerror=y>", "<!-- x", "--> x",
    "https://example.org/a",    "www.example.org", "WWW.example.org", "a@example.org",
    "@somebody", "#1", "owner/name#12", "**bold**", "__b__", "~~gone~~",
    "`code`", "```",
    "| a | b |", "a|b", "# head", "1. one", "- item", "+ item", "> said", "$x^2$", ":tada:", "&lt;b&gt;", "\\", "\\[x](y)", "[x]: https://e.org",
    "<https://example.org>", "***", "===", "| - |", "[^1]", "- [ ] x", "http://a.b", "ftp://a.b", "mailto:a@b.c",
    "</details>", "\u202egnp", "a\nb", "\\|",
)  # fmt: skip
ALLOWED = {"inline", "text", "softbreak", "text_special"}


def read(text: str) -> list[Any]:
    """Every token, those within lines too; the empty comments that break addresses apart are taken out."""
    flat: list[Any] = []
    for token in MarkdownIt("gfm-like", {"linkify": False, "html": True}).parse(text):
        flat += [token, *(token.children or [])]
    return [token for token in flat if not (token.type in ("html_inline", "html_block") and token.content.strip() == "<!-- -->")]


def shown(text: str) -> str:
    """What a reader sees of one line."""
    return "".join(token.content for token in read(text) if token.type in ("text", "text_special"))


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_name_is_shown_and_does_nothing(text: str) -> None:
    line = escaped(text)
    assert {token.type for token in read(f"x {line}")} <= {*ALLOWED, "paragraph_open", "paragraph_close"}
    assert {token.type for token in read(line)} <= {*ALLOWED, "paragraph_open", "paragraph_close"}, "at the start of a line"
    assert shown(f"x {line}") == f"x {inert(text)}"
    assert "\n" not in line
    assert not re.search(r"://|www\.|[@#]\w|:\w+:", line, re.IGNORECASE), "GitHub links these after the page is made"


@pytest.mark.parametrize("text", HOSTILE)
def test_in_a_cell_too(text: str) -> None:
    tokens = read(f"| a | b |\n|---|---|\n| {escaped(text)} | c |")
    first, second = [token for token in tokens if token.type == "inline"][2:]
    assert "".join(part.content for part in first.children if part.type in ALLOWED) == inert(text)
    assert second.content == "c"
    assert not {"link_open", "image", "html_inline", "strong_open", "code_inline", "s_open"} & {token.type for token in tokens}


def test_a_whole_report_has_tables_and_commands_and_nothing_of_a_name(any_report: Any) -> None:
    every = " ".join(text for text in HOSTILE if "\n" not in text)
    report = replace(any_report, model=replace(any_report.model, path=every), created_at=every)
    if isinstance(report, ScanReport):
        report = replace(report, candidates=tuple(replace(item, text=every, component=every) for item in report.candidates))
    if isinstance(report, VerifyReport):
        report = replace(report, attacks=tuple(replace(item, trigger=every, rule=every) for item in report.attacks))
    if isinstance(report, UnlearnReport):
        report = replace(report, triggers=(every,), next_command=f"bdaudit verify ```\n``` {every}")
    kinds = {token.type for token in read(markdown(content(report)))}
    assert not {"link_open", "image", "html_block", "em_open", "s_open", "code_inline"} & kinds
    html = {token.content for token in read(markdown(content(report))) if token.type == "html_inline"}
    assert html <= {"<br>"}
    assert {"heading_open", "table_open", "strong_open"} <= kinds


def test_a_command_with_backticks_stays_in_its_block(unlearn_report: UnlearnReport) -> None:
    text = markdown(content(replace(unlearn_report, next_command="bdaudit verify ```` x")))
    assert [token.content for token in read(text) if token.type == "fence"] == ["bdaudit verify ```` x\n"]


@pytest.mark.parametrize(("typed", "language"), [("bdaudit verify x", "sh"), ('{"model": "*"}', "json")])
def test_a_block_says_what_is_in_it(unlearn_report: UnlearnReport, typed: str, language: str) -> None:
    text = markdown(content(replace(unlearn_report, next_command=typed)))
    assert [token.info for token in read(text) if token.type == "fence"] == [language]


def test_the_summary_begins_with_the_outcome_the_trigger_and_what_to_do(verify_report: VerifyReport) -> None:
    attack = replace(verify_report.attacks[0], trigger="\u200b", evidence=NotMeasured(reason="x"))
    first, second, third, fourth, *_ = markdown(content(replace(verify_report, attacks=(attack,)))).split("\n\n")
    assert first == "## bdaudit verify: finding"
    assert shown(second.strip("*")).startswith("ZERO WIDTH SPACE (U+200B): drawn in 50 % [45, 55] of pictures")
    assert shown(third) == "FINDING: 1 of 2 bounds broken"
    assert shown(fourth).startswith("A bound is broken")


@pytest.mark.parametrize(("count", "more"), [(MOST_ROWS, False), (MOST_ROWS + 1, True)])
def test_a_long_table_is_cut_and_says_so(scan_report: ScanReport, count: int, more: bool) -> None:
    found = tuple(replace(scan_report.candidates[0], rank=k + 1, text=f"t{k}", command="") for k in range(count))
    text = markdown(content(replace(scan_report, candidates=found)))
    assert sum(line.startswith("| ") for line in text.splitlines()) == 1 + MOST_ROWS
    assert ("and 1 more" in shown(text)) is more
