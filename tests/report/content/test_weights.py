"""What stands apart in the weights, in words."""

from __future__ import annotations

from typing import Any

import pytest

from bdaudit.records import NotMeasured, ScanReport, WeightApart, Weights
from bdaudit.report.content.blocks import Heading, Line
from bdaudit.report.content.weights import weight_blocks


def told(*apart: WeightApart, **more: Any) -> list[str]:
    found = Weights(apart=apart, looked_at={"unet": 169, "text_encoder, rows": 2464}, **{"against_reference": True, **more})
    heading, *lines = weight_blocks(found)
    assert heading == Heading("The weights by themselves")
    return [line.text for line in lines if isinstance(line, Line)]


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "longer": ({"measure": "length", "value": 9.0, "score": 12.0}, "its length is 9, 12 spreads above the others'"),
    "shorter": ({"measure": "length", "value": 0.1, "score": -12.0}, "its length is 0.1, 12 spreads below the others'"),
    "copied": ({"measure": "neighbour", "value": 1.0, "score": 40.0, "beside": "cat"}, "all but equal to that of “cat” (cosine 1.000)"),
    "copied of no text": ({"measure": "neighbour", "value": 1.0, "score": 40.0}, "all but equal to another one (cosine 1.000)"),
    "alone": ({"measure": "change", "value": 2.5, "score": 0.0}, "250 % of its length away from the reference's, and hardly another"),
    "farther": ({"measure": "change", "value": 0.25, "score": 8.0}, "25 % of its length away from the reference's, 8 spreads farther"),
    "large": ({"measure": "size", "value": 2.0, "score": 7.0}, "its numbers are 7 spreads larger than in other layers of its kind"),
    "of one direction": ({"measure": "direction", "value": 0.97, "score": 0.0}, "is of one direction (97 % of it)"),
}


@pytest.mark.parametrize("case", CASES)
def test_each_measure_in_words(case: str) -> None:
    given, said = CASES[case]
    first, last = told(WeightApart(part="text_encoder", where="row 7", text="\u200b", **given))
    assert first.startswith("text_encoder, row 7 (ZERO WIDTH SPACE (U+200B)): ")
    assert said in first
    assert "None of this decides a verdict" in last


def test_a_layer_has_no_text() -> None:
    first, _ = told(WeightApart(part="unet", where="a.to_k.weight", measure="size", value=2.0, score=7.0))
    assert first.startswith("unet, a.to_k.weight: its numbers")


def test_nothing_that_stands_apart_is_said_too_and_what_was_not_looked_at() -> None:
    said, left = told(not_looked_at=("neighbours",), against_reference=False)
    assert said == "none of the weights stands out (unet: 169; text_encoder, rows: 2464), compared with each other; --reference tells more"
    assert left == "not looked at: neighbours"


def test_why_nobody_looked_is_said_but_of_a_run_that_did_not_come_so_far() -> None:
    heading, line = weight_blocks(NotMeasured(reason="the reference cannot be used"))
    assert (heading, line) == (Heading("The weights by themselves"), Line("not looked at: the reference cannot be used", "warn"))
    assert list(weight_blocks(ScanReport.weights)) == []
