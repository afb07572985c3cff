"""Figures and hostile texts in words, each from both sides of where its form changes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bdaudit.records import (
    CandidateRecord,
    Check,
    EncoderRecord,
    Estimate,
    Localisation,
    NotMeasured,
    RecoveryRecord,
    SignalRecord,
    SwapRecord,
)
from bdaudit.report.words import check_line, estimate, found_out, number, p_value, recovered, share, short, told


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.0, "0"), (1e-4, "0.0001"), (9.99e-5, "1.0e-04"), (-9.99e-5, "-1.0e-04"), (0.01234, "0.0123"), (999.4, "999"), (-999.4, "-999"),
        (1000.0, "1000"), (1234.5, "1234"), (-1234.5, "-1234"), (999_999.0, "999999"), (1e6, "1.0e+06"),
    ],
)  # fmt: skip
def test_three_digits_that_count(value: float, words: str) -> None:
    assert number(value) == words


def test_a_number_from_a_thousand_on_has_all_its_digits() -> None:
    assert (number(1000.4), number(999_999.0), number(123_456.0)) == ("1000", "999999", "123456")


@pytest.mark.parametrize(("p", "words"), [(1e-4, "0.0001"), (9.9e-5, "< 0.0001"), (0.0, "< 0.0001"), (0.003, "0.003"), (1.0, "1")])
def test_a_p_below_one_in_ten_thousand_is_told_as_such(p: float, words: str) -> None:
    assert p_value(p) == words


def test_a_text_is_cut_from_sixty_one_characters_on() -> None:
    assert short("a" * 60) == "a" * 60
    assert short("a" * 61).startswith(f"{'a' * 60}… (61 characters, #")
    assert told("a" * 60 + "ȏ").startswith(f"{'a' * 60}… (61 characters, #")


def test_a_check_says_its_reason_where_there_is_one() -> None:
    value = Estimate(value=0.5, low=0.25, high=0.75, n=8, method="t 95 %")
    check = Check(name="asr", status="failed", value=value, bound="≤ 0.05", reason="too often")
    assert check_line(check) == "asr: failed, 0.5 (0.25 to 0.75, n = 8), bound ≤ 0.05; too often"
    missing = Check(name="kid", status="not measured", value=NotMeasured(reason="no grader"), bound="none")
    assert check_line(missing) == "kid: not measured, not measured: no grader, bound none"


def test_a_search_that_named_no_text_says_so() -> None:
    found = RecoveryRecord(
        choices=16, gradients=99, soft_pull=8.0, text_pull=7.0, text="x", strongest_entry=2.0, drawn=64, named_pull=8.0,
        limit=6.0, verdict="suspicious",
    )  # fmt: skip
    assert "the strongest text named, x, 7 times" in recovered(found)
    assert "no text was named" in recovered(replace(found, text=""))
    encoder = EncoderRecord(choices=16, soft_left=0.7, text_left=1.0, text="", limit=0.6, verdict="clean")
    assert recovered(replace(found, encoder=encoder)).endswith("in the text encoder alone no text was named")


def test_what_is_left_in_copies_is_told_and_other_signals_are_not() -> None:
    signals = {name: SignalRecord(value=0.5, score=1.0, p=0.01) for name in ("left in copies", "noise shift")}
    item = CandidateRecord(
        rank=1, text="sks", codepoints=(), token_ids=(1,), kind="word", score=9.0, effect=1.0, p=1e-9, p_adjusted=1e-8,
        verdict="backdoored", signals=signals, component="unet", word_like="as a word",
    )  # fmt: skip
    assert found_out(item) == "in the unet; left in copies: 50 % (p 0.01); as a word"
    place = Localisation(where="unet", swaps={"unet": SwapRecord(left=-0.004, brought=0.996)})
    assert found_out(replace(item, component="not localised")).startswith("not localised; left in copies")
    assert "unet 0 % / 100 %" in found_out(replace(item, localisation=place)), "nothing is no less than nothing"


def test_a_range_that_is_no_confidence_interval_is_not_told_like_one() -> None:
    value = Estimate(value=3.07, low=0.01, high=0.11, n=25, method="5th to 95th percentile of harmless texts")
    assert estimate(value) == "3.07, beside it 0.01 to 0.11 (5th to 95th percentile of harmless texts, n = 25)"
    assert estimate(replace(value, method="beside it the range of harmless texts")).endswith("0.11 (range of harmless texts, n = 25)")
    assert estimate(replace(value, method="Wilson 95 %")) == "3.07 (0.01 to 0.11, n = 25)"


@pytest.mark.parametrize(("value", "low", "high", "words"), [(0, 0, 0.0188, "0 % [0, 1.9]"), (1, 0.9812, 1, "100 % [98.1, 100]")])
def test_a_share_is_short(value: float, low: float, high: float, words: str) -> None:
    found = Estimate(value=value, low=low, high=high, n=200, method="Wilson 95 %")
    assert (share(found), share(found, ends=False)) == (words, words.split(" [")[0])
