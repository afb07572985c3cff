"""The scatter as text: every point, the choice, and no text of the model as it is."""

from __future__ import annotations

import json
from dataclasses import replace

import jsonschema

from bdaudit.records import CanaryLeft, CanaryRecord, CleaningPoint, CleaningRecord, Estimate, NotMeasured, UnlearnReport
from bdaudit.report import cleaning, document
from tests.conftest import ALL, ESCAPE


def estimate(value: float) -> Estimate:
    return Estimate(value=value, low=value / 2, high=min(1.0, 2 * value), n=64, method="Wilson 95 %")


def point(rate: float, rejected: str = "") -> CleaningPoint:
    figures = {"accuracy": estimate(0.9), "canary": estimate(0.02), "residue": estimate(0.125)}
    return CleaningPoint(rate=rate, step=40, passes=1.5, spread=0.97, rejected=rejected, **figures)


def record() -> CleaningRecord:
    return CleaningRecord(
        mode="partial: text alone", pretrain_objective="unknown", consequence="not known", pairs=200, held_out=32, accuracy_is="found",
        canary=ESCAPE, canary_target=ALL, canary_before=estimate(0.98), accuracy_before=estimate(0.95),
        points=(point(1e-3), point(3e-3), point(1e-2, "accuracy fell")), chosen=1,
    )  # fmt: skip


def test_every_point_has_a_row_and_one_is_chosen() -> None:
    rows = cleaning.rows(record())
    assert [row[0] for row in rows] == ["0.001", "0.003", "0.01"]
    assert [row[-1] for row in rows] == ["", "chosen", "rejected: accuracy fell"]
    assert all(len(row) == len(cleaning.HEADERS) for row in rows)


def with_canaries() -> CleaningRecord:
    each = tuple(CanaryRecord(kind=kind, text=ESCAPE, target=ALL, before=estimate(0.98)) for kind in ("rare word", "look-alike"))
    left = tuple(CanaryLeft(kind=canary.kind, rate=estimate(0.03 * i), residue=estimate(0.1)) for i, canary in enumerate(each))
    return replace(record(), canaries=each, points=tuple(replace(p, canaries=left) for p in record().points))


def test_each_canary_is_shown(unlearn_report: UnlearnReport) -> None:
    works = cleaning.rows(with_canaries())[0][cleaning.HEADERS.index("canaries work")]
    assert [line.split(" (")[0] for line in works.split("\n")] == ["rare word: 0.0 %", "look-alike: 3.0 %"]
    found = cleaning.lines(replace(unlearn_report, cleaning=with_canaries()))
    assert [line.split(":")[0] for line in found[1:3]] == ["canary, rare word", "canary, look-alike"]
    assert "\x1b" not in "\n".join(found)


def test_an_older_report_has_one_canary(unlearn_report: UnlearnReport) -> None:
    old = json.loads(document.dumps(replace(unlearn_report, cleaning=with_canaries())))
    for holder in (old["cleaning"], *old["cleaning"]["points"]):
        del holder["canaries"]
    jsonschema.Draft202012Validator(document.shipped_schema()).validate(old)
    read = document.loads(json.dumps(old))
    assert read == replace(unlearn_report, cleaning=record())
    assert cleaning.lines(read)[1].startswith("canary: ")  # type: ignore[arg-type]
    assert cleaning.rows(record())[0][cleaning.HEADERS.index("canaries work")].startswith("2.0 %")


def test_lines_are_safe_and_only_there_for_a_cleaning(unlearn_report: UnlearnReport) -> None:
    assert cleaning.lines(unlearn_report) == []
    text = "\n".join(cleaning.lines(replace(unlearn_report, cleaning=record())))
    assert "\x1b" not in text
    assert "partial: text alone, 200 pairs, 32 of them held out" in text
    assert "nothing was chosen" in text


def test_it_survives_json(unlearn_report: UnlearnReport) -> None:
    report = replace(unlearn_report, cleaning=record())
    assert document.loads(document.dumps(report)) == report
    assert isinstance(document.loads(document.dumps(unlearn_report)).cleaning, NotMeasured)  # type: ignore[attr-defined]
