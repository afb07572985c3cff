"""One report, of any minor version and from anybody: taken, or refused by name."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from bdaudit.errors import ExitCode, UsageError
from bdaudit.records import Exit, NotMeasured, ScanReport
from bdaudit.report.document import dumps
from bdaudit.report.fleet.entry import ScanP, entry_of
from tests.report.fleet.reports import clean, entry, scan


def test_what_is_kept_of_a_scan(scan_report: ScanReport) -> None:
    report = scan(scan_report, "org/m", ("b", 0.02, "suspicious"), ("a", 0.001, "backdoored"), ("c", 1.0, "clean"), code=ExitCode.FINDING)
    kept = entry(report)
    assert (kept.verdict, kept.outcome, kept.model, kept.family) == ("backdoored", "finding", "org/m", "StableDiffusionPipeline")
    assert kept.shape == "unet 860M, vae 83.6M"
    assert [found.text for found in kept.found] == ["a", "b"]
    assert kept.scan == ScanP(p=0.001, raw=0.00001, alpha=0.01, counted=1 / 121)


@pytest.mark.parametrize(
    ("texts", "code", "verdict"),
    [
        ("suspicious", 0, "suspicious"), ("suspicious", 4, "suspicious"), ("backdoored", 0, "backdoored"), ("clean", 4, "inconclusive"),
        ("backdoored (accepted)", 0, "accepted"), ("clean", 5, "refused"), ("clean", 3, "error"), ("clean", 130, "interrupted"),
        ("clean", 0, "pass"), ("clean", 1, "backdoored"),
    ],
)  # fmt: skip
def test_the_worst_that_a_report_says_is_its_verdict(scan_report: ScanReport, texts: str, code: int, verdict: str) -> None:
    assert entry(scan(scan_report, "m", ("x", 0.5, texts), code=ExitCode(code))).verdict == verdict


def test_a_broken_bound_and_a_model_that_is_suspicious_as_a_whole(verify_report: Any, unlearn_report: Any, scan_report: ScanReport) -> None:
    assert entry(verify_report).verdict == entry(unlearn_report).verdict == "failed"
    assert isinstance(entry(verify_report).scan, NotMeasured)
    document = json.loads(dumps(clean(scan_report, "m")))
    document["recovery"] = {"verdict": "suspicious"}
    assert entry_of(document, "x").verdict == "suspicious"


def test_a_run_that_opened_no_model_has_no_family_and_no_p(scan_report: ScanReport) -> None:
    bare = NotMeasured(reason="refused")
    report = replace(scan_report, model=bare, environment=bare, calibration=bare, candidates=(), exit=Exit.of(ExitCode.REFUSED, "a pickle"))
    kept = entry(report)
    assert (kept.verdict, kept.family, kept.model) == ("refused", "", "models/suspect")
    assert kept.scan == NotMeasured(reason="the scan did not come to p-values")
    assert isinstance(entry(clean(scan_report, "m", status="interrupted")).scan, NotMeasured)


@pytest.mark.parametrize(("schema", "taken"), [("1.0.0", True), ("1.99.3", True), ("2.0.0", False), ("0.9.0", False), ("", False)])
def test_any_minor_version_is_taken_and_no_other_major(scan_report: ScanReport, schema: str, taken: bool) -> None:
    document = json.loads(dumps(clean(scan_report, "m"))) | {"schema_version": schema, "from_the_future": [1]}
    del document["model"]["parameters"]
    if taken:
        assert entry_of(document, "x").shape == ""
        return
    with pytest.raises(UsageError, match="schema_version"):
        entry_of(document, "x")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"command": "fleet"}, "command is 'fleet'"), ({"exit": {"code": 2}}, "exit.code is 2"), ({"exit": {"code": True}}, "exit.code"),
        ({"exit": None}, "exit is no table"), ({"model": []}, "model is no table"), ({"candidates": {}}, "candidates is no list"),
        ({"candidates": [{"text": "x", "verdict": "clean", "p_adjusted": 2, "p": 1}]}, "p_adjusted is 2"),
        ({"candidates": [{"text": 1, "verdict": "backdoored"}]}, "text is no text"), ({"created_at": 5}, "created_at is no text"),
        ({"calibration": {"alpha": 0.01, "n_controls": 0}}, "n_controls is 0"),
        ({"calibration": {"alpha": -1, "n_controls": 9}}, "alpha is -1"),
        ({"model": {"parameters": {"unet": -1}}}, "unet is no count"),
    ],
)  # fmt: skip
def test_a_field_of_another_kind_is_refused_by_name(scan_report: ScanReport, change: dict[str, Any], said: str) -> None:
    document = json.loads(dumps(clean(scan_report, "m")))
    entry_of(document, "x")
    with pytest.raises(UsageError, match=said):
        entry_of(document | change, "x")


def test_long_and_many_texts_are_bounded_and_told_apart(scan_report: ScanReport) -> None:
    texts = [("x" * 5000 + str(k), 0.001 * (k + 1), "backdoored") for k in range(40)]
    kept = entry(scan(scan_report, "m" * 5000, *texts))
    assert (len(kept.found), kept.more, len(kept.model)) == (32, 8, 400)
    assert {len(found.text) for found in kept.found} == {400}
    assert len({found.key for found in kept.found}) == 32
    assert kept.found[0].p_adjusted == 0.001
