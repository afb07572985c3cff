"""When a fleet passes: a file with one table, ``[fleet]``, and the exit that follows from it.

A finding of any scan reaches the gate unless the file says otherwise: both adjustments look at all models together, so whoever can add
models can make every other one harder to keep.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Literal, get_args

from bdaudit.errors import ExitCode, UsageError
from bdaudit.records import Exit
from bdaudit.report.fleet.entry import NOT_AUDITED, Entry, ScanP
from bdaudit.report.fleet.rates import ErrorRate, ModelTest, key_of
from bdaudit.report.fleet.read import FleetReports
from bdaudit.untrusted.open_file import read_toml

Findings = Literal["each", "benjamini-hochberg", "holm"]
_AHEAD = 1.0
"""Days by which a clock may be ahead."""


@dataclass(frozen=True, kw_only=True)
class FleetPolicy:
    """What is asked of a fleet."""

    max_inconclusive: float = 0.0
    """The share of reports that may say nothing of their model: refused, error, inconclusive, interrupted, not readable."""
    max_age_days: float = math.inf
    """How old a report may be."""
    min_reports: int = 1
    """How many there must be: a job that left no report is seen by nothing else."""
    findings: Findings = "each"
    """Which scans' findings reach the gate: each, or those that are kept over all models."""


def read_policy(path: Path) -> FleetPolicy:
    """The policy in a file.

    Raises:
        UsageError: no TOML, a key that is not known, or a value that cannot be meant.
    """
    said, document = f"--policy {path}", read_toml(path, f"--policy {path}")
    table, known = document.get("fleet"), [field.name for field in fields(FleetPolicy)]
    if not isinstance(table, dict) or set(document) != {"fleet"} or not table or set(table) - set(known):
        raise UsageError(f"{said}: expected one table, [fleet], with some of {', '.join(known)}")
    for name, value in table.items():
        if name == "findings":
            fits = value in get_args(Findings)
        else:
            fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
            fits = fits and (name != "max_inconclusive" or value <= 1) and (name != "min_reports" or isinstance(value, int))
        if not fits:
            raise UsageError(f"{said}: {name} is {ascii(value)[:60]}; expected {_expected(name)}")
    return FleetPolicy(**table)


def _expected(name: str) -> str:
    others = {"findings": ", ".join(get_args(Findings)), "max_inconclusive": "a share from 0 to 1", "min_reports": "a whole number"}
    return others.get(name, "a number of days")


def reaches_gate(entry: Entry, policy: FleetPolicy, tests: Mapping[str, ModelTest], rate: ErrorRate) -> bool:
    """Whether a report's finding counts. What has no p, as a broken bound, always does."""
    if entry.code != ExitCode.FINDING and entry.verdict not in ("backdoored", "failed"):
        return False
    test = tests.get(key_of(entry))
    if policy.findings == "each" or not isinstance(entry.scan, ScanP) or test is None or entry.whole:
        return True
    return (test.q if policy.findings == "benjamini-hochberg" else test.holm) <= rate.level


def exit_of(reports: FleetReports, policy: FleetPolicy, tests: Mapping[str, ModelTest], rate: ErrorRate, now: datetime) -> Exit:
    """How the merge ends: a finding, then what cannot be told, then a pass."""
    findings = sum(reaches_gate(entry, policy, tests, rate) for entry in reports.entries)
    total = len(reports.entries) + len(reports.not_read)
    said = f"{findings} of {total:,} reports with a finding"
    why = list(_open_questions(reports, policy, now))
    if findings:
        return Exit.of(ExitCode.FINDING, "; ".join([said, *why]))
    return Exit.of(ExitCode.INCONCLUSIVE if why else ExitCode.PASS, "; ".join([said, *why]))


def _open_questions(reports: FleetReports, policy: FleetPolicy, now: datetime) -> Sequence[str]:
    said: list[str] = []
    total = len(reports.entries) + len(reports.not_read)
    silent = sum(entry.verdict in NOT_AUDITED for entry in reports.entries) + len(reports.not_read)
    if total < policy.min_reports:
        said.append(f"{total:,} reports, expected at least {policy.min_reports:,}")
    if total and silent / total > policy.max_inconclusive:
        said.append(f"{silent:,} reports say nothing of their model ({silent / total:.1%}, allowed {policy.max_inconclusive:.1%})")
    if math.isfinite(policy.max_age_days):
        old = sum(not -_AHEAD <= age(entry, now) <= policy.max_age_days for entry in reports.entries)
        if old:
            said.append(f"{old:,} reports are older than {policy.max_age_days:g} days, or their date is none")
    return said


def age(entry: Entry, now: datetime) -> float:
    """Days since the report was written; infinite where it has no date with a time zone."""
    try:
        return (now - datetime.fromisoformat(entry.created_at)).total_seconds() / 86400
    except (ValueError, TypeError, OverflowError):
        return math.inf
