"""Where a run's report goes, of what was typed: files, and what stdout gets."""

from __future__ import annotations

from bdaudit.cli.options import Delivery, Format
from bdaudit.errors import UsageError
from bdaudit.report.deliver import TABLES, Output

SUFFIXES: dict[Format, str] = {"table": TABLES, "json": ".json", "sarif": ".sarif", "html": ".html", "md": ".md"}
"""What ``--format`` takes → the suffix whose format it is."""


def output_of(delivery: Delivery) -> Output:
    """``--format`` is that of ``-o``; without ``-o``, of stdout.

    Raises:
        UsageError: two flags say what stdout gets, or how much is told; or a file that cannot be one.
    """
    if delivery.quiet and delivery.verbose:
        raise UsageError("--quiet and --verbose say how much stderr is told; give one")
    asked = SUFFIXES[delivery.format] if delivery.format else ""
    by_format = "" if delivery.output else asked
    if delivery.json and by_format not in ("", ".json"):
        raise UsageError(f"--json and --format {delivery.format} both say what stdout gets; give one, or -o FILE beside --json")
    return Output(
        reports=delivery.report,
        output=delivery.output,
        output_as=asked if delivery.output else "",
        stdout=by_format or (".json" if delivery.json else TABLES),
        quiet=delivery.quiet,
        verbose=delivery.verbose,
    )
