"""Two reports that differ in one text alone never look alike, in any of their forms."""

from __future__ import annotations

import io
import re
import unicodedata
from dataclasses import replace

import pytest
from rich.console import Console

from bdaudit.records import Exit, Report, ScanReport, UnlearnReport, VerifyReport
from bdaudit.report.content.whole import content
from bdaudit.report.page import page
from bdaudit.report.sarif import sarif
from bdaudit.report.terminal import renderable

PAIRS = [
    ("<U+200B>", "\u200b"), ("é", "e\u0301"), ("cf", "cf "), (" cf", "cf"), ("a b", "a  b"), ("photo", "phоto"), ("оo", "oо"),
    ("a" * 70 + "b", "a" * 70 + "c"), ("Å", "\u212b"), ("a\nb", "a b"), ("[V]", "<U+005B>V<U+005D>"),
]  # fmt: skip


def shown(report: Report) -> list[str]:
    """Every form as an eye sees it: composed, runs of blanks as one."""
    stream = io.StringIO()
    Console(file=stream, width=300).print(renderable(content(report)))
    forms = [stream.getvalue(), page(content(report)), sarif(report)]
    return [re.sub(r"\s+", " ", unicodedata.normalize("NFC", form)) for form in forms]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_candidates(scan_report: ScanReport, one: str, other: str) -> None:
    first, *rest = sorted(scan_report.candidates, key=lambda c: c.rank)

    def of(text: str) -> list[str]:
        found = replace(first, text=text, codepoints=(), verdict="backdoored", command="")
        return shown(replace(scan_report, candidates=(found, *rest)))

    for a, b in zip(of(one), of(other), strict=True):
        marks = r'"(bdaudit/v1|primaryLocationLineHash)": "[\w:]+"'
        assert re.sub(marks, "", a) != re.sub(marks, "", b)


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_triggers(unlearn_report: UnlearnReport, verify_report: VerifyReport, one: str, other: str) -> None:
    def of(text: str) -> list[str]:
        attack = replace(verify_report.attacks[0], trigger=text, codepoints=())
        return [shown(replace(unlearn_report, triggers=(text,)))[0], *shown(replace(verify_report, attacks=(attack,)))[:2]]

    assert all(a != b for a, b in zip(of(one), of(other), strict=True))


@pytest.mark.parametrize(("one", "other"), [pair for pair in PAIRS if "\n" not in pair[0] and "o" not in pair[0]])
def test_reasons(scan_report: ScanReport, one: str, other: str) -> None:
    def of(text: str) -> list[str]:
        return shown(replace(scan_report, exit=Exit(code=3, name="error", reason=f"what is wrong: {text}")))

    assert all(a != b for a, b in zip(of(one), of(other), strict=True))


def test_a_hidden_character_is_written_once_in_the_page(scan_report: ScanReport) -> None:
    first, *rest = scan_report.candidates
    text = page(content(replace(scan_report, candidates=(replace(first, text="pho\u200bto", command=""), *rest))))
    assert "pho&lt;U+200B&gt;to" in text
    assert "U+003C" not in text
