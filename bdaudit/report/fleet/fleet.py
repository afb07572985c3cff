"""A fleet, put together: the reports, the tests over their models, what they have in common, and how it ends."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from bdaudit.records import Exit
from bdaudit.report.fleet.entry import Entry, ScanP
from bdaudit.report.fleet.groups import Family, SameTensors, SharedText, families, same_tensors, shared_texts
from bdaudit.report.fleet.policy import FleetPolicy, exit_of
from bdaudit.report.fleet.rates import ErrorRate, ModelTest, key_of, models_tested
from bdaudit.report.fleet.read import FleetReports
from bdaudit.version import __version__

FLEET_VERSION = "1.0.0"


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Everything that its page, its JSON and its SARIF say."""

    reports: FleetReports
    policy: FleetPolicy
    tests: dict[str, ModelTest]
    rate: ErrorRate
    families: tuple[Family, ...]
    same_tensors: tuple[SameTensors, ...]
    shared_texts: tuple[SharedText, ...]
    exit: Exit
    created_at: datetime

    def test_of(self, entry: Entry) -> ModelTest | None:
        """Of a scan that has a p."""
        return self.tests[key_of(entry)] if isinstance(entry.scan, ScanP) else None


def fleet_of(reports: FleetReports, policy: FleetPolicy, now: datetime) -> Fleet:
    """The fleet as it stands at ``now``, a time with a zone."""
    tests, rate = models_tested(reports.entries)
    return Fleet(
        reports=reports,
        policy=policy,
        tests=tests,
        rate=rate,
        families=families(reports.entries),
        same_tensors=same_tensors(reports.entries),
        shared_texts=shared_texts(reports.entries),
        exit=exit_of(reports, policy, tests, rate, now),
        created_at=now,
    )


def document(fleet: Fleet) -> dict[str, Any]:
    """The fleet as JSON values; ``fleet_version`` is the schema's, in the manner of a report's ``schema_version``."""
    policy = asdict(fleet.policy)
    return {
        "fleet_version": FLEET_VERSION,
        "tool": {"name": "bdaudit", "version": __version__},
        "created_at": fleet.created_at.isoformat(timespec="seconds"),
        "exit": asdict(fleet.exit),
        "policy": policy | ({} if math.isfinite(policy["max_age_days"]) else {"max_age_days": "not set"}),
        "error_rate": asdict(fleet.rate),
        "reports": [_row(fleet, entry) for entry in fleet.reports.entries],
        "not_read": [asdict(each) for each in fleet.reports.not_read],
        "other_json_files": fleet.reports.other,
        "families": [asdict(each) for each in fleet.families],
        "same_tensors": [asdict(each) for each in fleet.same_tensors],
        "shared_texts": [asdict(each) for each in fleet.shared_texts],
    }


def _row(fleet: Fleet, entry: Entry) -> dict[str, Any]:
    test = fleet.test_of(entry)
    plain = {
        "found": [vars(each) for each in entry.found],
        "scan": vars(entry.scan),
    }  # asdict would copy every text of ten thousand reports
    return vars(entry) | plain | {"over_all_models": vars(test or entry.scan)}
