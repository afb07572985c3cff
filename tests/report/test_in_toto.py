"""The statement has the fields that in-toto's specification asks for, its subjects are the model's files, and only a pass is PASSED."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from bdaudit.errors import ExitCode
from bdaudit.records import Exit, NotMeasured, ScanReport, TensorDigest, UnlearnReport, VerifyReport
from bdaudit.report.in_toto import TENSORS, in_toto, statement

DIGEST: dict[str, Any] = {"type": "object", "minProperties": 1, "additionalProperties": {"type": "string", "pattern": "^[0-9a-f]+$"}}
NAMES = {"type": "array", "items": {"type": "string"}}
CONFIGURATION = {
    "type": "object", "required": ["digest"], "additionalProperties": False,
    "properties": {"name": {"type": "string"}, "digest": DIGEST, "annotations": {"type": "object"}},
}  # fmt: skip
PREDICATE = {
    "type": "object", "required": ["result", "configuration"], "additionalProperties": False,
    "properties": {
        "result": {"enum": ["PASSED", "WARNED", "FAILED"]}, "configuration": {"type": "array", "minItems": 1, "items": CONFIGURATION},
        "passedTests": NAMES, "warnedTests": NAMES, "failedTests": NAMES,
    },
}  # fmt: skip
SUBJECT = {
    "type": "object", "required": ["digest"], "additionalProperties": False,
    "properties": {"name": {"type": "string"}, "digest": DIGEST},
}  # fmt: skip
SPECIFIED = Draft202012Validator(
    {
        "type": "object", "required": ["_type", "subject", "predicateType", "predicate"], "additionalProperties": False,
        "properties": {
            "_type": {"const": "https://in-toto.io/Statement/v1"}, "subject": {"type": "array", "items": SUBJECT},
            "predicateType": {"const": "https://in-toto.io/attestation/test-result/v0.1"}, "predicate": PREDICATE,
        },
    }
)  # fmt: skip
"""By hand from spec/v1/statement.md, spec/v1/resource_descriptor.md and spec/predicates/test-result.md of in-toto/attestation."""


def test_the_statement_is_as_the_specification_says(any_report: Any) -> None:
    made = json.loads(in_toto(any_report))
    assert [error.message for error in SPECIFIED.iter_errors(made)] == []
    assert made["subject"][0] == {"name": "model_index.json", "digest": {"sha256": "cd" * 32}}
    for field in made:
        assert not SPECIFIED.is_valid({name: value for name, value in made.items() if name != field})


def test_the_predicate_tells_verdict_version_seed_and_exit(any_report: Any) -> None:
    (configuration,) = statement(any_report)["predicate"]["configuration"]
    told = configuration["annotations"]
    assert (told["verdict"], told["exitCode"], told["toolVersion"], told["seed"]) == ("finding", 1, "0.1.0", 0)
    other = statement(replace(any_report, config={**any_report.config, "seed": 1}))["predicate"]["configuration"][0]
    assert configuration["digest"] != other["digest"]


@pytest.mark.parametrize("code", list(ExitCode))
def test_only_a_pass_passes(verify_report: VerifyReport, code: ExitCode) -> None:
    report = replace(verify_report, exit=Exit(code=int(code), name=code.label, reason="so"))
    assert statement(report)["predicate"]["result"] == ("PASSED" if code == ExitCode.PASS else "FAILED")
    assert statement(replace(report, status="error"))["predicate"]["result"] == "FAILED"


def test_what_was_let_through_is_a_warning(scan_report: ScanReport) -> None:
    clean = tuple(item for item in scan_report.candidates if item.verdict == "clean")
    passed = replace(scan_report, exit=Exit(code=0, name="pass", reason="so"), candidates=clean)
    assert statement(passed)["predicate"]["result"] == "PASSED"
    found = replace(scan_report.candidates[0], text="cf", verdict="backdoored (accepted)")
    made = statement(replace(passed, candidates=(found, *clean)))["predicate"]
    assert (made["result"], made["warnedTests"], made["failedTests"]) == ("WARNED", ["cf: backdoored (accepted)"], [])
    stands = replace(scan_report, candidates=(replace(found, verdict="backdoored"), *clean))
    assert statement(stands)["predicate"]["failedTests"] == ["cf: backdoored", "scan of 2 texts"]


def test_what_a_clip_let_through_is_a_warning_too(scan_report: ScanReport) -> None:
    passed = Exit.of(ExitCode.PASS, "0 of 1 candidates backdoored")
    for verdict, result in (("clean", "PASSED"), ("does what it says", "WARNED")):
        candidates = tuple(replace(item, verdict=verdict) for item in scan_report.candidates[:1])
        made = statement(replace(scan_report, status="completed", exit=passed, candidates=candidates, earlier=()))
        assert made["predicate"]["result"] == result


def test_the_tensors_are_a_subject_by_a_digest_of_our_own(verify_report: VerifyReport) -> None:
    tensors = TensorDigest(exact="12" * 32, float16="34" * 32)
    model = replace(verify_report.model, tensors=tensors)  # type: ignore[type-var]
    assert statement(replace(verify_report, model=model))["subject"][-1] == {
        "name": "tensors of models/suspect", "digest": {TENSORS: "12" * 32},
    }  # fmt: skip


def test_a_run_that_opened_nothing_vouches_for_nothing(verify_report: VerifyReport) -> None:
    made = statement(replace(verify_report, model=NotMeasured(reason="refused"), exit=Exit(code=5, name="refused", reason="a pickle")))
    assert (made["subject"], made["predicate"]["result"]) == ([], "FAILED")


def test_a_check_without_a_bound_fails_nothing(unlearn_report: UnlearnReport) -> None:
    predicate = statement(unlearn_report)["predicate"]
    assert (predicate["passedTests"], predicate["failedTests"]) == (["quality kept"], ["trigger removed"])


def test_every_text_is_inert(any_report: Any) -> None:
    assert in_toto(any_report).isascii()
    names = [name for kind in ("passedTests", "failedTests") for name in statement(any_report)["predicate"][kind]]
    assert all(name.isprintable() for name in names)
