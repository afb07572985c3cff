"""The bench of training where the closed form does not repair: which cases count, what is taught, and its tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fixtures.build.unet import new_unet
from tests.bench.recording import Cells
from tests.bench.unlearn_trained import CASES, RESULTS, VARIANTS, counts, tables

CASE = CASES[0]


def rate(low: float, value: float, high: float) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": 100}


def cell(asr: dict[str, Any], end: str = "pass") -> dict[str, Any]:
    attempts = [{"trainable": "cross-attention", "steps": 200, "outcome": ""}, {"trainable": "unet", "steps": 400, "outcome": ""}]
    figures = {"asr": asr, "without": rate(0.0, 0.02, 0.07), "shift": 0.125, "clip_ratio": rate(0.99, 1.0, 1.01)}
    return {**figures, "exit": end, "attempts": attempts}


@pytest.mark.parametrize(
    ("before", "closed", "told"),
    [
        (0.97, None, False),
        (0.97, cell(rate(0.0, 0.01, 0.05)), False),
        (0.97, cell(rate(0.4, 0.5, 0.6)), True),
        (0.97, cell(rate(0.0, 0.01, 0.05), "finding"), True),
        (0.97, {"exit": "inconclusive", "reason": "no effect"}, True),
        (0.89, cell(rate(0.4, 0.5, 0.6), "finding"), False),
    ],
)
def test_a_case_counts_where_the_attack_works_and_the_closed_form_does_not_repair_it(
    tmp_path: Path, before: float, closed: dict[str, Any] | None, told: bool
) -> None:
    cells = Cells(tmp_path / "record.json")
    cells.cells = {f"{CASE.name}/before": {"asr": rate(before, before, before)}}
    if closed:
        cells.cells[f"{CASE.name}/closed form/0"] = closed
    assert counts(cells, CASE) is told


def test_what_is_taught_here_reads_no_text_and_is_there() -> None:
    names = list(new_unet().state_dict())
    taught = {case.name: {name for name in names if case.layers(name)} for case in CASES if case.layers}
    assert len(taught) == 3
    for layers in taught.values():
        assert 0 < len(layers) < 0.7 * len(names)
        assert not any("attn2" in name for name in layers)


def test_the_variants_differ_in_guidance_alone() -> None:
    assert VARIANTS["no attention"] == {**VARIANTS["attention"], "attention_weight": 0.0}


def test_the_tables_tell_each_cell_once_and_what_was_not_tried() -> None:
    of = {"asr": rate(0.9, 0.95, 0.98), "without": rate(0.0, 0.0, 0.04), "idea": "an idea"}
    shown = tables({
        "a/before": of, "b/before": of, "a/closed form/0": cell(rate(0.4, 0.5, 0.6), "finding"),
        "a/attention/0": cell(rate(0.0, 0.01, 0.05)), "a/no attention/1": {"exit": "inconclusive", "reason": ""},
    })  # fmt: skip
    before, trained = shown.split("\n\n")
    assert [line.split(" | ")[0] for line in before.splitlines()[2:]] == ["| `a`", "| `b`"]
    assert "50.0 [40.0, 60.0] | 0.125 | 1.000 [0.990, 1.010] | cross-attention 200, then unet 400 | finding |" in before
    assert "not tried" in before.splitlines()[3]
    assert [line.split(" | ")[:2] for line in trained.splitlines()[2:]] == [["| `a`, 0", "attention"], ["| `a`, 1", "no attention"]]
    assert {line.count("|") for line in before.splitlines()} == {10}
    assert {line.count("|") for line in trained.splitlines()} == {8}


def test_the_readme_has_the_tables_of_the_record() -> None:
    cells = json.loads(RESULTS.read_text(encoding="utf-8"))["cells"]
    assert tables(cells) in (RESULTS.parents[1] / "README.md").read_text(encoding="utf-8")
    assert {name.split("/")[0] for name in cells} <= {case.name for case in CASES}
