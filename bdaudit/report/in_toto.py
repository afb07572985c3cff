"""A report as an in-toto Statement v1 whose predicate is a Test Result v0.1, unsigned: whoever has a key signs it.

Sources: https://github.com/in-toto/attestation, spec/v1/statement.md, spec/v1/resource_descriptor.md and spec/predicates/test-result.md.
Only a pass is ``PASSED``, and ``WARNED`` where it let something through (--accept, --clip, --fail-on); what could not be decided is
``FAILED``, so that a policy that reads ``result`` alone lets nothing undecided through. A run that opened no model has no subject: it
vouches for nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from bdaudit.errors import ExitCode
from bdaudit.records import Check, NotMeasured, Report, ScanReport, TensorDigest, UnlearnReport, VerifyReport
from bdaudit.report.document import values
from bdaudit.report.safe import one_line, visible
from bdaudit.report.sarif import NO_FINDING
from bdaudit.report.words import told

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://in-toto.io/attestation/test-result/v0.1"
TENSORS = "bdauditTensorsV1"
"""Our own algorithm in a DigestSet, lowercase hex: SHA-256 over sorted (part, name, dtype, shape, SHA-256 of the bytes)."""


def in_toto(report: Report) -> str:
    """The statement as JSON text, a line feed at the end."""
    return json.dumps(statement(report), indent=2, ensure_ascii=True, allow_nan=False) + "\n"


def statement(report: Report) -> dict[str, Any]:
    """The statement: each file of the model, and the model by its tensors, are its subjects."""
    tests = list(_tests(report))
    named = {f"{status}Tests": [name for name, own in tests if own == status] for status in ("passed", "warned", "failed")}
    result = "FAILED" if not _passed(report) else "WARNED" if named["warnedTests"] else "PASSED"
    predicate = {"result": result, "configuration": [_configuration(report)], **named}
    return {"_type": STATEMENT, "subject": list(_subjects(report)), "predicateType": PREDICATE, "predicate": predicate}


def _passed(report: Report) -> bool:
    return report.status == "completed" and report.exit.code == ExitCode.PASS


def _subjects(report: Report) -> Iterator[dict[str, Any]]:
    """What was audited. ``sha256`` is that of a file's bytes and of nothing else, since a subject is matched by its digest alone."""
    if isinstance(report.model, NotMeasured):
        return
    yield from ({"name": visible(file.path), "digest": {"sha256": file.sha256}} for file in report.model.files)
    if isinstance(report.model.tensors, TensorDigest):
        yield {"name": f"tensors of {visible(report.model.path)}", "digest": {TENSORS: report.model.tensors.exact}}


def _configuration(report: Report) -> dict[str, Any]:
    """What was run: the digest is of the settings as JSON, sorted by name, without blanks."""
    settings = json.dumps(values(report)["config"], sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")
    model = report.model
    return {
        "name": f"bdaudit {visible(report.command)}",
        "digest": {"sha256": hashlib.sha256(settings).hexdigest()},
        "annotations": {
            "verdict": visible(report.exit.name),
            "reason": one_line(report.exit.reason),
            "exitCode": report.exit.code,
            "status": report.status,
            "toolVersion": visible(report.tool.get("version", "")),
            "reportSchema": visible(report.schema_version),
            "seed": report.config.get("seed", "not set"),
            "createdAt": visible(report.created_at),
            "model": f"not opened: {one_line(model.reason)}" if isinstance(model, NotMeasured) else visible(model.digest),
        },
    }


def _tests(report: Report) -> Iterator[tuple[str, str]]:
    """Each check, or each text that a scan found something of, by name; passed, warned or failed."""
    if isinstance(report, ScanReport):
        stands = "warned" if _passed(report) else "failed"  # it was let through, or below the gate
        found = [item for item in report.candidates if item.verdict != "clean"]
        for item in found:
            by_choice = "accepted" in item.verdict or item.verdict in NO_FINDING  # of a person, or of the CLIP that one named
            yield f"{told(item.text)}: {item.verdict}", "warned" if by_choice else stands
        yield from ((f"{told(item.text)}: backdoored, by an earlier run", stands) for item in report.earlier)
        yield f"scan of {report.coverage.tested} texts", "passed" if _passed(report) else "failed"
    if isinstance(report, UnlearnReport | VerifyReport):
        yield from ((visible(check.name), _status(check)) for check in report.checks)


def _status(check: Check) -> str:
    """A figure that no bound stands for fails nothing."""
    return "passed" if check.status == "passed" or (check.bound == "none" and check.status != "failed") else "failed"
