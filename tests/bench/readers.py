"""Whether a reader of SARIF that is not ours reads it: ``python tests/bench/readers.py REPORTS [PATH]``, with ``sarif-tools`` on the PATH.

REPORTS is a folder of reports as JSON. Each becomes a SARIF log, and so does the fleet of them all. sarif-tools writes each log as CSV, and
counts it. Both must tell every result, with its level, its rule and the whole of its message. It needs matplotlib and lxml, so that it is
no part of the tests' environment.
"""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import tempfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bdaudit.report.document import read_report
from bdaudit.report.fleet.fleet import fleet_of
from bdaudit.report.fleet.policy import FleetPolicy
from bdaudit.report.fleet.read import read_reports
from bdaudit.report.fleet.sarif import sarif as fleet_sarif
from bdaudit.report.sarif import sarif
from tests.bench.recording import record


def logs(folder: Path) -> dict[str, str]:
    """Name → SARIF text, of each report and of the fleet."""
    found = {path.stem: sarif(read_report(path, "REPORTS")) for path in sorted(folder.glob("*.json"))}
    return found | {"fleet": fleet_sarif(fleet_of(read_reports([folder]), FleetPolicy(), datetime.now(UTC)))}


def told(log: str) -> list[tuple[str, str, str]]:
    """Level, rule and message of each result, as the log has them."""
    results = json.loads(log)["runs"][0]["results"]
    return sorted((result["level"], result["ruleId"], result["message"]["text"]) for result in results)


def read(log: str, work: Path) -> tuple[list[tuple[str, str, str]], dict[str, int]]:
    """The same as sarif-tools reads them, and its count of each level."""
    path = work / "log.sarif"
    path.write_text(log, encoding="utf-8")
    subprocess.run(["sarif", "csv", "--output", str(work / "log.csv"), str(path)], check=True, capture_output=True)
    rows = list(csv.DictReader(io.StringIO((work / "log.csv").read_text(encoding="utf-8-sig"))))
    summary = subprocess.run(["sarif", "summary", str(path)], check=True, capture_output=True, text=True).stdout
    counts = {level: int(summary.split(f"{level}: ")[1].split()[0]) for level in ("error", "warning")}
    return sorted((row["Severity"], row["Code"], row["Description"]) for row in rows), counts


def main(folder: Path) -> None:
    """Command line."""
    version = subprocess.run(["sarif", "--version"], check=True, capture_output=True, text=True).stdout.split()[-1]
    cells: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as work:
        for name, log in logs(folder).items():
            expected = told(log)
            rows, counts = read(log, Path(work))
            levels = Counter(level for level, _, _ in expected)
            alike = rows == expected and counts == {level: levels[level] for level in counts}
            cells[name] = {"results": len(expected), **counts, "read alike": alike}
    record({"reader": f"sarif-tools {version}", "cells": cells}, 2)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
