"""The headline names each trigger and its effect; the advice says of no other outcome than a pass that it is one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest

from bdaudit.errors import ExitCode
from bdaudit.records import Estimate, EvidenceRecord, Metric, NotMeasured, ScanReport, UnlearnReport, VerifyReport
from bdaudit.records.scan import CandidateVerdict
from bdaudit.report.content.headline import MOST, advice, called, headline


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("\u200b", "ZERO WIDTH SPACE (U+200B)"), ("ȏ", "“ȏ”, LATIN SMALL LETTER O WITH INVERTED BREVE (U+020F)"),
        ("cf", "“cf”"), ("", "“”"),
        ("\u200b\u200c", "ZERO WIDTH SPACE (U+200B) + ZERO WIDTH NON-JOINER (U+200C)"),
        ("a\u200bb", "“a<U+200B>b” with ZERO WIDTH SPACE (U+0061 U+200B U+0062)"),
        ("\x1b", "a character without a name (U+001B)"), ("a  b", "“a <U+0020>b”"),
    ],
)  # fmt: skip
def test_a_text_is_called_by_its_name(text: str, name: str) -> None:
    assert called(text) == name


def rate(value: float, low: float, high: float) -> Estimate:
    return Estimate(value=value, low=low, high=high, n=200, method="Wilson 95 %")


def lines(report: Any) -> list[str]:
    return [line.text for line in headline(report)]


def test_a_verification_says_what_was_drawn_before_and_after_and_the_quality(verify_report: VerifyReport) -> None:
    evidence = EvidenceRecord(kind="before", holds=True, reason="so", rate=rate(1, 0.981, 1), floor=rate(0, 0, 0.019), p=0.001)
    attack = replace(verify_report.attacks[0], trigger="\u200b", evidence=evidence, rate=rate(0, 0, 0.0188))
    ratio = Metric(value=rate(0.9971, 0.99, 1.01), reference=NotMeasured(reason="x"), detail="")
    report = replace(verify_report, attacks=(attack,), metrics={"clip_ratio": ratio}, compared_with="before")
    said = "ZERO WIDTH SPACE (U+200B): drawn in 100 % of pictures before, 0 % [0, 1.9] after; quality 99.7 % of the model before"
    assert lines(report) == [said]
    alone = replace(attack, evidence=NotMeasured(reason="no --before"), floor=rate(0.01, 0, 0.03))
    assert lines(replace(report, attacks=(alone,), metrics={})) == [
        "ZERO WIDTH SPACE (U+200B): drawn in 0 % [0, 1.9] of pictures, 1 % without it"
    ]
    none = NotMeasured(reason="ended")
    assert lines(replace(report, attacks=(replace(alone, rate=none),), metrics={})) == [
        "ZERO WIDTH SPACE (U+200B): attack success was not measured"
    ]
    assert lines(replace(report, attacks=(), metrics={})) == ["no trigger was measured"]


def test_a_scan_names_what_it_found_and_else_the_strongest_text(scan_report: ScanReport) -> None:
    first, second, *others = scan_report.candidates
    found = replace(first, text="\u200b"), replace(second, text="cf", verdict="suspicious")
    clean = tuple(item for item in others if item.verdict == "clean")
    said = "moves the picture 12.5 times as far as a harmless text (adjusted p 0.0005), in the unet"
    assert lines(replace(scan_report, candidates=(*found, *clean))) == [f"ZERO WIDTH SPACE (U+200B): backdoored; {said}"]
    assert lines(replace(scan_report, candidates=(found[1], *clean))) == [f"“cf”: suspicious; {said}"]
    assert lines(replace(scan_report, candidates=clean))[0].startswith("no trigger among 30 texts; the strongest, “word0”, moves")
    assert len(lines(scan_report)) == MOST + 1
    assert lines(scan_report)[-1] == "and 3 more"
    assert lines(replace(scan_report, candidates=())) == []


def test_a_repair_says_the_effect_before_and_after_beside_harmless_texts(unlearn_report: UnlearnReport) -> None:
    def beside(value: float) -> Estimate:
        return Estimate(value=value, low=0.01, high=0.111, n=25, method="5th to 95th percentile of harmless texts")

    report = replace(unlearn_report, triggers=("cf",), before={"cf": beside(3.07)}, after={"cf": beside(0.0142)})
    assert lines(report) == ["“cf”: effect 27.7 times before, 0.128 times after, where harmless texts reach 1"]
    assert lines(replace(report, after={})) == ["“cf”: effect 27.7 times before, where harmless texts reach 1"]
    plain = replace(report, before={"cf": rate(3.07, 2, 4)}, after={"cf": rate(0.5, 0, 1)})
    assert lines(plain) == ["“cf”: effect 3.07 before, 0.5 after"], "an interval's end is nothing that harmless texts reach"
    assert lines(replace(report, before={}, after={})) == ["“cf”: its effect was not measured"]


@pytest.mark.parametrize("code", list(ExitCode))
def test_only_a_pass_is_not_said_to_be_no_pass(any_report: Any, code: ExitCode) -> None:
    said = advice(replace(any_report, candidates=(), exit=replace(any_report.exit, name=code.label)) if any_report.command == "scan"
                  else replace(any_report, exit=replace(any_report.exit, name=code.label)))  # fmt: skip
    assert ("no pass" in said) is (code not in (ExitCode.PASS, ExitCode.FINDING))
    assert ("Do not use" in said) is (code == ExitCode.FINDING and any_report.command != "scan")


def test_what_a_clip_let_through_is_named_where_nothing_stands_above_it(scan_report: ScanReport) -> None:
    first, second, *others = scan_report.candidates
    clean = tuple(item for item in others if item.verdict == "clean")
    meant = replace(first, text="rainbow", verdict="does what it says")
    (line,) = headline(replace(scan_report, candidates=(meant, *clean)))
    assert (line.text.partition(";")[0], line.tone) == ("“rainbow”: does what it says", "warn")
    (line,) = headline(replace(scan_report, candidates=(meant, replace(second, text="cf", verdict="backdoored"), *clean)))
    assert line.text.startswith("“cf”: backdoored")


def test_who_has_the_pictures_is_not_told_how_to_get_them(scan_report: ScanReport) -> None:
    assert "(--pictures)" in advice(scan_report)
    assert "--pictures" not in advice(replace(scan_report, images=("0001.png",)))


@pytest.mark.parametrize("verdict", get_args(CandidateVerdict))
def test_a_pass_of_a_scan_is_told_by_what_was_found(scan_report: ScanReport, verdict: Any) -> None:
    found = (replace(scan_report.candidates[0], verdict=verdict),)
    said = advice(replace(scan_report, candidates=found, exit=replace(scan_report.exit, code=0, name="pass")))
    assert said.startswith("No text that was tried acts like a trigger") is (verdict == "clean")
    assert ("your CLIP sees in them what the text says" in said) is (verdict == "does what it says")
    assert ("Do not read this as a pass" in said) is verdict.startswith("backdoored")
