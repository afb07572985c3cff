"""The scatter of a cleaning: every point, the choice, and no text of the model as it is."""

from __future__ import annotations

from dataclasses import replace

from bdaudit.records import CanaryLeft, CanaryRecord, CleaningPoint, CleaningRecord, Estimate, NotMeasured, UnlearnReport
from bdaudit.report import document
from bdaudit.report.content.unlearn import _done, cleaning_lines, scatter
from tests.conftest import ALL, ESCAPE


def estimate(value: float) -> Estimate:
    return Estimate(value=value, low=value / 2, high=min(1.0, 2 * value), n=64, method="Wilson 95 %")


KINDS = ("rare word", "look-alike")


def point(rate: float, rejected: str = "") -> CleaningPoint:
    left = tuple(CanaryLeft(kind=kind, rate=estimate(0.03 * i), residue=estimate(0.1)) for i, kind in enumerate(KINDS))
    figures = {"accuracy": estimate(0.9), "residue": estimate(0.125)}
    return CleaningPoint(rate=rate, step=40, passes=1.5, spread=0.97, rejected=rejected, canaries=left, **figures)


def record() -> CleaningRecord:
    return CleaningRecord(
        mode="partial: text alone", pretrain_objective="unknown", consequence="not known", pairs=200, held_out=32, accuracy_is="found",
        canaries=tuple(CanaryRecord(kind=kind, text=ESCAPE, target=ALL, before=estimate(0.98)) for kind in KINDS),
        accuracy_before=estimate(0.95), points=(point(1e-3), point(3e-3), point(1e-2, "accuracy fell")), chosen=1,
    )  # fmt: skip


def test_what_was_done_names_the_method_and_component_or_none(unlearn_report: UnlearnReport) -> None:
    told = replace(unlearn_report, method="keys and values", component="unet", component_reason="it was named")
    assert {"component: unet, because it was named"} <= set(_done(told))
    assert any(line.startswith("method: keys and values") for line in _done(told))
    lines = _done(replace(told, method="", component="", component_reason="", steps=0, loss=(), triggers=(), changed=()))
    assert lines == ["triggers: none", "method: none", "component: none", "changed: 0 tensors"]


def test_every_point_has_a_row_and_one_is_chosen() -> None:
    (table,) = scatter(record())
    assert [row[0].lines for row in table.rows] == [("0.001",), ("0.003",), ("0.01",)]
    assert [row[-1].lines for row in table.rows] == [("",), ("chosen",), ("rejected: accuracy fell",)]
    assert all(len(row) == len(table.columns) for row in table.rows)


def test_each_canary_is_shown() -> None:
    (table,) = scatter(record())
    works = table.rows[0][[column.title for column in table.columns].index("canaries work")].lines
    assert [line.split(" (")[0] for line in works] == ["rare word: 0.0 %", "look-alike: 3.0 %"]
    found = cleaning_lines(record())
    assert [line.split(":")[0] for line in found[1:3]] == ["canary, rare word", "canary, look-alike"]
    assert "\x1b" not in "\n".join(found)


def test_lines_are_safe_and_only_there_for_a_cleaning(unlearn_report: UnlearnReport) -> None:
    assert cleaning_lines(unlearn_report.cleaning) == []
    assert scatter(unlearn_report.cleaning) == []
    text = "\n".join(cleaning_lines(record()))
    assert "\x1b" not in text
    assert "partial: text alone, 200 pairs, 32 of them held out" in text
    assert "nothing was chosen" in text


def test_it_survives_json(unlearn_report: UnlearnReport) -> None:
    report = replace(unlearn_report, cleaning=record())
    assert document.loads(document.dumps(report)) == report
    assert isinstance(document.loads(document.dumps(unlearn_report)).cleaning, NotMeasured)  # type: ignore[attr-defined]
