"""SARIF has what code-scanning tools require, one result a finding, and nothing that they would act on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft4Validator, FormatChecker

from bdaudit.records import Exit, NotMeasured, RecoveryRecord, ScanReport, UnlearnReport, VerifyReport
from bdaudit.report.sarif import document, sarif

PUBLISHED = Path(__file__).parent / "published" / "sarif-2.1.0-rtm.5.json"
"""The schema of SARIF 2.1.0 as published (OASIS; this copy is from @microsoft/jest-sarif, MIT)."""


def results(report: Any) -> list[dict[str, Any]]:
    return list(document(report)["runs"][0]["results"])


def test_the_log_has_its_required_parts(any_report: Any) -> None:
    log = json.loads(sarif(any_report))
    assert log["version"] == "2.1.0"
    run = log["runs"][0]
    assert run["tool"]["driver"]["name"] == "bdaudit"
    assert run["invocations"][0]["executionSuccessful"] is True
    assert run["invocations"][0]["exitCode"] == 1
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    for result in run["results"]:
        assert rules[result["ruleIndex"]] == result["ruleId"]
        assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "models/suspect/model_index.json"


def test_every_rule_has_help_an_address_a_severity_and_tags(any_report: Any) -> None:
    rules = document(any_report)["runs"][0]["tool"]["driver"]["rules"]
    for rule in rules:
        assert rule["help"]["text"] == rule["help"]["markdown"]
        assert rule["help"]["text"] in rule["fullDescription"]["text"]
        assert len(rule["fullDescription"]["text"]) < 1024, "GitHub's limit"
        assert rule["helpUri"].startswith("https://")
        assert rule["name"].isalpha()
        assert 0 < float(rule["properties"]["security-severity"]) <= 10
        assert "security" in rule["properties"]["tags"]
    warns = [rule["id"] for rule in rules if rule["defaultConfiguration"]["level"] == "warning"]
    assert warns == [rule["id"] for rule in rules if float(rule["properties"]["security-severity"]) < 7] == ["suspicious-model"]


def test_githubs_own_fingerprint_tells_triggers_apart(scan_report: ScanReport) -> None:
    prints = [result["partialFingerprints"] for result in results(scan_report)]
    assert len({each["primaryLocationLineHash"] for each in prints}) == len({each["bdaudit/v1"] for each in prints}) == 11
    assert all(each["primaryLocationLineHash"] == f"{each['bdaudit/v1'][:16]}:1" for each in prints)


def test_a_result_for_each_candidate_that_is_not_clean(scan_report: ScanReport) -> None:
    levels = [result["level"] for result in results(scan_report)]
    assert levels.count("error") == 6
    assert levels.count("warning") == 5


@pytest.mark.parametrize(("verdict", "level"), [("backdoored (accepted)", "error"), ("suspicious (accepted)", "warning")])
def test_an_accepted_finding_is_a_suppressed_result(scan_report: ScanReport, published: Any, verdict: Any, level: str) -> None:
    first, *others = scan_report.candidates
    report = replace(scan_report, candidates=(replace(first, verdict=verdict, acceptance="accepted until 2027: [our] style"), *others))
    told, *rest = results(report)
    said = "accepted until 2027: <U+005B>our<U+005D> style"
    assert (told["level"], told["suppressions"]) == (level, [{"kind": "external", "status": "accepted", "justification": said}])
    assert told["partialFingerprints"] == results(scan_report)[0]["partialFingerprints"], "the same alert"
    assert not any("suppressions" in result for result in rest)
    assert not list(published.iter_errors(document(report)))


@pytest.mark.parametrize("verdict", ["clean", "suspicious"])
def test_a_result_for_a_model_that_is_suspicious_as_a_whole(scan_report: ScanReport, verdict: Any) -> None:
    whole = RecoveryRecord(
        choices=16, gradients=99, soft_pull=8.0, text_pull=8.0, text="x", strongest_entry=2.0, drawn=64, named_pull=8.0,
        limit=6.0, verdict=verdict,
    )  # fmt: skip
    told = [result for result in results(replace(scan_report, recovery=whole)) if result["ruleId"] == "suspicious-model"]
    assert [result["level"] for result in told] == ["warning"] * (verdict == "suspicious")
    assert all("the model as a whole is suspicious" in result["message"]["text"] for result in told)


def test_a_message_says_what_was_found_out(scan_report: ScanReport) -> None:
    first, *others = scan_report.candidates
    said = results(replace(scan_report, candidates=(replace(first, word_like="so does [a] word"), *others)))[0]["message"]["text"]
    assert said.endswith(", in the unet; so does <U+005B>a<U+005D> word")


def test_a_result_for_each_failed_check_only(unlearn_report: UnlearnReport, verify_report: VerifyReport) -> None:
    assert [result["ruleId"] for result in results(unlearn_report)] == ["repair-check"]
    assert [result["ruleId"] for result in results(verify_report)] == ["verify-bound"]
    assert "bound ≤ 0.05" in results(verify_report)[0]["message"]["text"]


def test_messages_hold_no_link_placeholder_or_hidden_character(any_report: Any) -> None:
    run = document(any_report)["runs"][0]
    messages = [result["message"]["text"] for result in run["results"]] + [run["invocations"][0]["exitCodeDescription"]]
    for text in messages:
        assert text.isprintable()
        assert not set("[]{}") & set(text)


def test_fingerprints_tell_candidates_apart_and_outlive_a_new_score(scan_report: ScanReport) -> None:
    prints = [result["partialFingerprints"] for result in results(scan_report)]
    assert len({tuple(p.values()) for p in prints}) == 11
    again = replace(scan_report, candidates=tuple(replace(item, effect=3.0, score=item.score / 2) for item in scan_report.candidates))
    assert [result["partialFingerprints"] for result in results(again)] == prints


def test_a_run_that_failed_is_told_as_such(scan_report: ScanReport) -> None:
    outcome = Exit(code=3, name="error", reason="no memory")
    report = replace(scan_report, status="error", exit=outcome, candidates=(), model=NotMeasured(reason="not opened"))
    invocation = document(report)["runs"][0]["invocations"][0]
    assert invocation["executionSuccessful"] is False
    assert invocation["toolExecutionNotifications"][0]["message"]["text"] == "no memory"


@pytest.mark.parametrize(("code", "name", "conclusive"), [(0, "pass", True), (1, "finding", True), (4, "inconclusive", False)])
def test_a_run_without_a_verdict_closes_nobodys_alerts(scan_report: ScanReport, code: int, name: str, conclusive: bool) -> None:
    (run,) = document(replace(scan_report, exit=Exit(code=code, name=name, reason="so")))["runs"]
    assert run["invocations"][0]["executionSuccessful"] is conclusive
    assert run["automationDetails"]["id"] == f"bdaudit/{'' if conclusive else 'inconclusive/'}scan/models/suspect/"


def test_the_category_is_of_the_verb_and_the_models_name(any_report: Any) -> None:
    def category(path: str, **changes: Any) -> str:
        report = replace(any_report, model=replace(any_report.model, path=path, **changes))
        return str(document(report)["runs"][0]["automationDetails"]["id"])

    verb = any_report.command
    assert category("./models/suspect/") == category("models/suspect", digest="cd" * 32) == f"bdaudit/{verb}/models/suspect/"
    assert category("other/suspect") != category("models/suspect")
    assert category("/srv/my model\n") == f"bdaudit/{verb}/srv/my%20model%0A/"
    assert category(".") == category("..") == f"bdaudit/{verb}/abababababab/", "a name that every model could have"


def test_a_pass_without_an_adapter_or_on_other_weights_closes_no_alert_of_the_finding(scan_report: ScanReport) -> None:
    def category(**chosen: Any) -> str:
        report = replace(scan_report, config={**scan_report.config, **chosen})
        return str(document(report)["runs"][0]["automationDetails"]["id"])

    plain = category(variant="", adapters=[])
    assert plain == category() == "bdaudit/scan/models/suspect/"
    others = [{"variant": "fp16"}, {"variant": "full"}, {"adapters": [["a.safetensors", 1.0]]}, {"adapters": [["b;c/d.safetensors", 0.5]]}]
    found = [category(**other) for other in others]
    assert len({plain, *found}) == 5
    assert found[0] == "bdaudit/scan/models/suspect;fp16/"
    assert all(each.endswith("/") and each.startswith("bdaudit/scan/models/suspect;") for each in found)


def test_a_check_that_could_not_be_made_keeps_its_alert_beside_a_finding(verify_report: VerifyReport) -> None:
    lost = replace(verify_report.checks[0], name="kid", status="not measured", value=NotMeasured(reason="no grader"), reason="no grader")
    report = replace(verify_report, checks=(*verify_report.checks, lost, replace(lost, name="fid", bound="none")))
    assert [(r["level"], r["message"]["text"].split(":")[0]) for r in results(report)] == [("error", "attack success"), ("warning", "kid")]
    failed = replace(verify_report, checks=(replace(verify_report.checks[0], name="kid"),))
    assert results(report)[1]["partialFingerprints"] == results(failed)[0]["partialFingerprints"]


def test_an_absolute_path_with_spaces_becomes_a_uri(scan_report: ScanReport) -> None:
    report = replace(scan_report, model=replace(scan_report.model, path="/srv/my model"))  # type: ignore[type-var]
    assert results(report)[0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "file:///srv/my%20model/model_index.json"


# --- the published schema ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def published() -> Draft4Validator:
    schema = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    Draft4Validator.check_schema(schema)
    return Draft4Validator(schema, format_checker=FormatChecker())


def test_the_log_fits_the_published_schema(any_report: Any, published: Draft4Validator) -> None:
    assert [error.message for error in published.iter_errors(json.loads(sarif(any_report)))] == []


def test_so_does_the_log_of_a_run_that_failed(scan_report: ScanReport, published: Draft4Validator) -> None:
    failed = replace(
        scan_report, status="error", exit=Exit(code=3, name="error", reason="no memory"), candidates=(), model=NotMeasured(reason="no")
    )
    assert [error.message for error in published.iter_errors(document(failed))] == []


def test_the_published_schema_refuses_what_it_should(scan_report: ScanReport, published: Draft4Validator) -> None:
    for change in ({"version": "2.2.0"}, {"runs": [{"results": []}]}, {"verdict": "finding"}):
        assert not published.is_valid(document(scan_report) | change)
