"""When a fleet passes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bdaudit.errors import ExitCode, UsageError
from bdaudit.records import ScanReport
from bdaudit.report.fleet.policy import FleetPolicy, exit_of, read_policy
from bdaudit.report.fleet.rates import models_tested
from bdaudit.report.fleet.read import FleetReports, NotRead
from tests.report.fleet.reports import clean, fleet_reports, scan

NOW = datetime(2026, 1, 12, 3, 4, 5, tzinfo=UTC)
"""Ten days after the reports."""


def code(reports: FleetReports, policy: FleetPolicy, now: datetime = NOW) -> int:
    return exit_of(reports, policy, *models_tested(reports.entries), now).code


def test_the_whole_file(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text('[fleet]\nmax_inconclusive = 0.05\nmax_age_days = 30\nmin_reports = 100\nfindings = "holm"\n')
    assert read_policy(tmp_path / "p.toml") == FleetPolicy(max_inconclusive=0.05, max_age_days=30, min_reports=100, findings="holm")


@pytest.mark.parametrize(
    "text",
    [
        "", "[fleet]", "[verify]\nmax_kid = 1", "[fleet]\nmax_inconclusiv = 0.1", "[fleet]\nmax_inconclusive = 1.5", "fleet = 1",
        "[fleet]\nmax_age_days = nan", "[fleet]\nmin_reports = 1.5", "[fleet]\nmin_reports = true", "[fleet]\nmax_age_days = -1",
        "[fleet]\nfindings = 'none'", "[fleet]\nfindings = ['each']",
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.toml").write_text(text)
    with pytest.raises(UsageError, match="--policy"):
        read_policy(tmp_path / "p.toml")


def test_a_finding_wins_and_what_is_silent_is_no_pass(scan_report: ScanReport) -> None:
    good, silent = clean(scan_report, "a"), clean(scan_report, "b", code=ExitCode.REFUSED)
    bad = scan(scan_report, "c", ("t", 0.001, "backdoored"), code=ExitCode.FINDING)
    assert code(fleet_reports(good), FleetPolicy()) == 0
    assert code(fleet_reports(good, silent), FleetPolicy()) == 4
    assert code(fleet_reports(good, silent, bad), FleetPolicy()) == 1
    assert code(fleet_reports(), FleetPolicy()) == 4
    assert code(replace(fleet_reports(good), not_read=(NotRead("x", "cut"),)), FleetPolicy()) == 4


def test_a_finding_that_its_own_gate_let_through_is_one_here(scan_report: ScanReport) -> None:
    assert code(fleet_reports(scan(scan_report, "c", ("t", 0.001, "backdoored"))), FleetPolicy()) == 1
    assert code(fleet_reports(scan(scan_report, "c", ("t", 0.02, "suspicious"))), FleetPolicy()) == 0
    assert code(fleet_reports(scan(scan_report, "c", ("t", 0.02, "suspicious"), code=ExitCode.FINDING)), FleetPolicy()) == 1
    assert code(fleet_reports(scan(scan_report, "c", ("t", 0.001, "backdoored (accepted)"))), FleetPolicy()) == 0


@pytest.mark.parametrize(("share", "ends"), [(0.5, 0), (0.49, 4)])
def test_the_share_that_may_be_silent(scan_report: ScanReport, share: float, ends: int) -> None:
    reports = fleet_reports(clean(scan_report, "a"), clean(scan_report, "b", code=ExitCode.ERROR))
    assert code(reports, FleetPolicy(max_inconclusive=share)) == ends


@pytest.mark.parametrize(("days", "ends"), [(10, 0), (9.9, 4)])
def test_the_age_of_a_report(scan_report: ScanReport, days: float, ends: int) -> None:
    assert code(fleet_reports(clean(scan_report, "a")), FleetPolicy(max_age_days=days)) == ends


@pytest.mark.parametrize("date", ["", "yesterday", "2026-01-02T03:04:05", "2126-01-02T03:04:05+00:00"])
def test_a_date_that_is_none_or_of_the_future_is_too_old(scan_report: ScanReport, date: str) -> None:
    reports = fleet_reports(clean(scan_report, "a", created_at=date))
    assert code(reports, FleetPolicy(max_age_days=30)) == 4
    assert code(reports, FleetPolicy()) == 0


def test_a_clock_that_is_a_little_ahead(scan_report: ScanReport) -> None:
    date = (NOW + timedelta(hours=20)).isoformat()
    assert code(fleet_reports(clean(scan_report, "a", created_at=date)), FleetPolicy(max_age_days=30)) == 0


@pytest.mark.parametrize(("fewest", "ends"), [(2, 0), (3, 4)])
def test_how_many_there_must_be(scan_report: ScanReport, fewest: int, ends: int) -> None:
    assert code(fleet_reports(clean(scan_report, "a"), clean(scan_report, "b")), FleetPolicy(min_reports=fewest)) == ends


def test_only_a_policy_asks_the_fleet_which_findings_count(scan_report: ScanReport) -> None:
    """p = 0.006 alone: an alarm at 0.01, and none over two models; with a second one like it, the rate keeps both, Holm none."""
    weak = scan(scan_report, "c", ("t", 0.006, "backdoored"), code=ExitCode.FINDING)
    twin = scan(scan_report, "d", ("u", 0.006, "backdoored"), code=ExitCode.FINDING)
    one, two = fleet_reports(clean(scan_report, "a"), weak), fleet_reports(twin, weak)
    assert code(one, FleetPolicy()) == 1
    assert code(one, FleetPolicy(findings="benjamini-hochberg")) == code(one, FleetPolicy(findings="holm")) == 0
    assert code(two, FleetPolicy(findings="benjamini-hochberg")) == 1
    assert code(two, FleetPolicy(findings="holm")) == 0


def test_what_has_no_p_always_counts(verify_report: object, scan_report: ScanReport) -> None:
    assert code(fleet_reports(verify_report, clean(scan_report, "a")), FleetPolicy(findings="holm")) == 1
