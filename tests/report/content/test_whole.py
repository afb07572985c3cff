"""Content is inert whoever shows it, holds every part of a report, and is the same for the same report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

from bdaudit.records import NotMeasured, ScanReport, UnauditedWeights, VariantRun
from bdaudit.report.content.whole import content
from bdaudit.report.safe import inert


def texts(part: Any) -> Iterator[str]:
    """Every text in it, but for a picture's path, which is read and not shown."""
    if isinstance(part, str):
        yield part
    elif isinstance(part, tuple | list):
        for inner in part:
            yield from texts(inner)
    elif is_dataclass(part):
        for field in fields(part):
            yield from texts(getattr(part, field.name)) if field.name != "path" else ()


def test_every_text_is_inert_already(any_report: Any, hostile: tuple[str, ...]) -> None:
    every = " ".join(hostile)
    model = replace(any_report.model, unaudited=(UnauditedWeights(path=every, reason=every),), path=every, pipeline=every, digest=every)
    runs = (VariantRun(variant=every, code=1, name=every, reason=every, findings=(every,)),)
    machine = replace(any_report.environment, torch=every, device=every, dtype=every)
    report = replace(any_report, model=model, variants=runs, environment=machine, tool={"version": every}, created_at=every)
    shown = list(texts(content(report)))
    assert len(shown) > 50
    assert [text for text in shown if inert(text) != text] == []
    assert not any("<U+003C>" in text for text in shown), "a code point was made visible twice"


def test_a_report_without_a_model_says_why(scan_report: ScanReport) -> None:
    nothing = NotMeasured(reason="it was not opened")
    head = content(replace(scan_report, model=nothing, environment=nothing)).head
    assert [line.text for line in head] == ["model: models/suspect (it was not opened)"]


def test_what_takes_room_is_a_detail(scan_report: ScanReport) -> None:
    details = [line.text for line in content(scan_report).head if line.detail]
    assert [text.split()[0] for text in details] == ["digest:", "python"]
    assert "ab" * 32 in details[0]


def test_an_outcome_that_is_not_known_is_no_good_one(scan_report: ScanReport) -> None:
    assert content(scan_report).verdict.tone == "bad"
    assert content(replace(scan_report, exit=replace(scan_report.exit, name="odd"))).verdict.tone == "warn"
