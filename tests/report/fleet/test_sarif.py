"""A fleet as SARIF: errors are those that Holm keeps, and no finding is left out."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import jsonschema

from bdaudit.errors import ExitCode
from bdaudit.records import ScanReport
from bdaudit.report.fleet.fleet import fleet_of
from bdaudit.report.fleet.policy import FleetPolicy
from bdaudit.report.fleet.read import FleetReports, NotRead
from bdaudit.report.fleet.sarif import log, sarif
from tests.report.fleet.reports import clean, fleet_reports, scan

PUBLISHED = Path(__file__).parent.parent / "published" / "sarif-2.1.0-rtm.5.json"
NOW = datetime(2026, 1, 12, tzinfo=UTC)


def made(reports: FleetReports) -> dict[str, object]:
    return log(fleet_of(reports, FleetPolicy(), NOW))["runs"][0]


def test_it_fits_the_published_schema_with_hostile_names(scan_report: ScanReport, hostile: tuple[str, ...]) -> None:
    texts = [(text, 1e-5, "backdoored") for text in hostile]
    reports = fleet_reports(
        scan(scan_report, " ".join(hostile), *texts, code=ExitCode.FINDING), clean(scan_report, "b", code=ExitCode.ERROR)
    )
    reports = replace(reports, not_read=(NotRead("[x](http://y)", "cut {0}"),))
    text = sarif(fleet_of(reports, FleetPolicy(), NOW))
    jsonschema.Draft7Validator(json.loads(PUBLISHED.read_text(encoding="utf-8"))).validate(json.loads(text))
    assert text.isascii()
    messages = [result["message"]["text"] for result in json.loads(text)["runs"][0]["results"]]
    assert len(messages) == 2
    assert not any(c in message for message in messages for c in "[]{}\x1b\u202e")


def test_what_holm_does_not_keep_is_a_warning_that_says_so(scan_report: ScanReport) -> None:
    weak = scan(scan_report, "weak", ("t", 0.006, "backdoored"), code=ExitCode.FINDING)
    strong = scan(scan_report, "strong", ("t", 1e-6, "backdoored"), code=ExitCode.FINDING)
    results = made(fleet_reports(weak, strong, clean(scan_report, "a"), clean(scan_report, "b")))["results"]
    assert isinstance(results, list)
    assert {result["message"]["text"].split(":")[1].strip(): result["level"] for result in results} == {
        "weak": "warning",
        "strong": "error",
    }
    assert "clean models give by chance" in results[0]["message"]["text"]
    assert "clean models give by chance" not in results[1]["message"]["text"]


def test_a_fleet_without_a_verdict_closes_nobodys_alerts(scan_report: ScanReport) -> None:
    assert made(fleet_reports(clean(scan_report, "a")))["automationDetails"] == {"id": "bdaudit/fleet/"}
    silent = made(fleet_reports(clean(scan_report, "a", code=ExitCode.REFUSED)))
    assert silent["automationDetails"] == {"id": "bdaudit/inconclusive/fleet/"}
    assert silent["invocations"][0]["executionSuccessful"] is False  # type: ignore[index]


def test_fingerprints_tell_models_and_texts_apart_and_nothing_else(scan_report: ScanReport) -> None:
    def prints(*reports: ScanReport) -> list[object]:
        return [result["partialFingerprints"] for result in made(fleet_reports(*reports))["results"]]  # type: ignore[attr-defined]

    one = scan(scan_report, "a", ("t", 1e-6, "backdoored"))
    assert prints(clean(scan_report, "x"), one) == prints(replace(one, created_at="2026-05-05T00:00:00+00:00"))
    assert prints(one) != prints(scan(scan_report, "b", ("t", 1e-6, "backdoored")))
    assert prints(one) != prints(scan(scan_report, "a", ("u", 1e-6, "backdoored")))


def test_every_rule_has_help_an_address_a_severity_and_tags(scan_report: ScanReport) -> None:
    rules = made(fleet_reports(clean(scan_report, "a")))["tool"]["driver"]["rules"]  # type: ignore[index]
    for rule in rules:
        assert len(rule["fullDescription"]["text"]) < 1024, "GitHub's limit"
        assert rule["help"]["text"] == rule["help"]["markdown"]
        assert rule["helpUri"].startswith("https://")
        assert "security" in rule["properties"]["tags"]
    severities = {rule["id"]: float(rule["properties"]["security-severity"]) for rule in rules}
    warns = {rule["id"] for rule in rules if rule["defaultConfiguration"]["level"] == "warning"}
    assert warns == {name for name, severity in severities.items() if severity < 7} == {"fleet-suspicious", "fleet-not-audited"}


def test_githubs_own_fingerprint_tells_models_apart(scan_report: ScanReport) -> None:
    reports = fleet_reports(*(scan(scan_report, name, ("t", 1e-6, "backdoored")) for name in ("a", "b")))
    prints = [result["partialFingerprints"] for result in made(reports)["results"]]  # type: ignore[attr-defined]
    assert len({each["primaryLocationLineHash"] for each in prints}) == 2
    assert all(each["primaryLocationLineHash"] == f"{each['bdaudit/v1'][:16]}:1" for each in prints)
