"""``python -m bdaudit.report fleet DIR… --out fleet.html``: what a person types, and what is written."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from bdaudit.config.run import need_apart
from bdaudit.errors import UsageError
from bdaudit.report.deliver import last_line
from bdaudit.report.fleet.fleet import Fleet, document, fleet_of
from bdaudit.report.fleet.page import page
from bdaudit.report.fleet.policy import FleetPolicy, read_policy
from bdaudit.report.fleet.read import read_reports
from bdaudit.report.fleet.sarif import sarif
from bdaudit.report.safe import visible
from bdaudit.targets import try_file, write_whole

FLAGS = {"out": ".html", "json": ".json", "sarif": ".sarif"}
"""Flag → the suffix of what it writes."""


def merge(arguments: Sequence[str]) -> int:
    """Read, merge, write; the exit code, after the last line on stderr.

    Raises:
        UsageError: a wrong command line, folder or policy.
        BdauditError: a file cannot be written.
    """
    given = _parser().parse_args(arguments)
    targets = {flag: path for flag in FLAGS if (path := getattr(given, flag)) is not None}
    _check(targets)
    policy = read_policy(given.policy) if given.policy else FleetPolicy()
    fleet = fleet_of(read_reports(given.folders), policy, datetime.now(UTC))
    for flag, path in targets.items():
        write_whole(path, _written(flag, fleet, path).encode("ascii" if flag != "out" else "utf-8"))
    sys.stderr.write(last_line(fleet.exit, ", ".join(visible(str(path)) for path in targets.values())) + "\n")
    return fleet.exit.code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bdaudit.report fleet",
        description="Merge the JSON reports below some folders into one page. Exit codes as of bdaudit itself: 1 a finding, "
        "4 more reports that say nothing than the policy allows, 0 otherwise.",
        allow_abbrev=False,
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="a folder with reports; folders in it too, but *.state")
    parser.add_argument("--out", type=Path, metavar="FILE.html", help="one page of all reports")
    parser.add_argument("--json", type=Path, metavar="FILE.json", help="the same for programs")
    parser.add_argument("--sarif", type=Path, metavar="FILE.sarif", help="findings for code scanning; errors are those that Holm keeps")
    parser.add_argument("--policy", type=Path, metavar="FILE.toml", help="[fleet] max_inconclusive, max_age_days, min_reports, findings")
    return parser


def _check(targets: dict[str, Path]) -> None:
    if not targets:
        raise UsageError("nothing would be written; give --out FILE.html, --json FILE.json or --sarif FILE.sarif")
    for flag, path in targets.items():
        if path.suffix.lower() != FLAGS[flag]:
            raise UsageError(f"--{flag} {path}: expected a name that ends in {FLAGS[flag]}")
        if not path.parent.is_dir():
            raise UsageError(f"--{flag} {path}: the folder {path.parent} does not exist; create it first")
        try_file(path, f"--{flag} {path}")
    need_apart([(f"--{flag}", path) for flag, path in targets.items()])


def _written(flag: str, fleet: Fleet, path: Path) -> str:
    if flag == "out":
        return page(fleet, path)
    return sarif(fleet) if flag == "sarif" else json.dumps(document(fleet), ensure_ascii=True, allow_nan=False) + "\n"
