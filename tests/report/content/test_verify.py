"""What a verification shows: the bar of a rate, the strongest forms, and what each picture is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bdaudit.records import Estimate, NotMeasured, ReachRecord, VerifyReport
from bdaudit.report.content.blocks import Table
from bdaudit.report.content.verify import bar, body, pictures


@pytest.mark.parametrize(
    ("value", "high", "expected"), [(0.0, 0.0, "·" * 20), (1.0, 1.0, "█" * 20), (0.5, 0.75, "█" * 10 + "░" * 5 + "·" * 5)]
)
def test_a_bar_shows_the_rate_and_its_upper_end(value: float, high: float, expected: str) -> None:
    assert bar(Estimate(value=value, low=0.0, high=high, n=10, method="Wilson 95 %"), 20) == expected


def test_what_was_not_measured_has_no_bar() -> None:
    assert bar(NotMeasured(reason="no trigger")) == ""


def test_all_but_the_strongest_forms_of_each_trigger_are_details(verify_report: VerifyReport) -> None:
    rate = verify_report.attacks[0].rate

    def attack(trigger: str, forms: int) -> object:
        reach = tuple(ReachRecord(what=f"form {k}", text="x", codepoints=(), rate=rate, floor=rate, p=0.5) for k in range(forms))
        return replace(verify_report.attacks[0], trigger=trigger, reach=reach)

    report = replace(verify_report, attacks=(attack("a", 5), attack("b", 1), attack("c", 4)))  # type: ignore[arg-type]
    (reach,) = [block for block in body(report) if isinstance(block, Table) and block.title == "Reach of the trigger"]
    assert [reach.rows[at][1].lines for at in sorted(reach.details)] == [("form 3",), ("form 4",), ("form 3",)]


def test_a_picture_says_what_it_shows_by_its_name(verify_report: VerifyReport) -> None:
    report = replace(verify_report, images=("a/trigger-1.png", "b/other.png"))
    assert [picture.path for picture in pictures(report)] == list(report.images)
    assert pictures(report)[0].says.startswith("What the trigger does to the same picture")
    assert pictures(report)[1].says == "Evidence picture"
    drawn = replace(report, images=("quality.png",))
    said = [pictures(replace(drawn, compared_with=what))[0].says for what in ("before", "reference")]
    assert [each.partition(" on the same")[0] for each in said] == ["The model beside the model before", "The model beside the reference"]
