"""A fleet as SARIF: one result a finding, an error where Holm keeps it over all models.

What a scan found and Holm does not keep is a warning that says so: nothing that one report calls a finding is left out.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any
from urllib.parse import quote

from bdaudit.errors import ExitCode
from bdaudit.report.fleet.entry import Entry
from bdaudit.report.fleet.fleet import Fleet
from bdaudit.report.safe import code_point, one_line, visible
from bdaudit.report.sarif import SCHEMA
from bdaudit.report.words import p_value, told
from bdaudit.version import __version__

RULES = {
    "fleet-backdoored": "A scan found a text that makes a model draw something that harmless texts of its kind do not.",
    "fleet-suspicious": "A scan calls a model suspicious.",
    "fleet-failed": "A repair or a bound does not pass its check.",
    "fleet-not-audited": "A report says nothing of its model.",
}
_RULE_OF = {"backdoored": "fleet-backdoored", "suspicious": "fleet-suspicious", "failed": "fleet-failed"}


def sarif(fleet: Fleet) -> str:
    """The fleet as SARIF text, a line feed at the end."""
    return json.dumps(log(fleet), indent=1, ensure_ascii=True, allow_nan=False) + "\n"


def log(fleet: Fleet) -> dict[str, Any]:
    """The fleet as a SARIF log of one run, whose category is its own where it came to no verdict: it closes nobody's alerts then."""
    conclusive = fleet.exit.code in (ExitCode.PASS, ExitCode.FINDING)
    rules = [{"id": name, "shortDescription": {"text": text}} for name, text in RULES.items()]
    invocation: dict[str, Any] = {
        "executionSuccessful": conclusive,
        "exitCode": fleet.exit.code,
        "exitCodeDescription": _inert(f"{fleet.exit.name}: {one_line(fleet.exit.reason)}"),
    }
    unread = [{"level": "error", "message": _message(f"{visible(each.file)}: {one_line(each.reason)}")} for each in fleet.reports.not_read]
    run = {
        "tool": {"driver": {"name": "bdaudit", "version": __version__, "rules": rules}},
        "automationDetails": {"id": f"bdaudit/{'' if conclusive else 'inconclusive/'}fleet/"},
        "invocations": [invocation | ({"toolExecutionNotifications": unread} if unread else {})],
        "columnKind": "unicodeCodePoints",
        "results": [_result(fleet, entry) for entry in fleet.reports.entries if entry.verdict not in ("pass", "accepted")],
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _result(fleet: Fleet, entry: Entry) -> dict[str, Any]:
    rule = _RULE_OF.get(entry.verdict, "fleet-not-audited")
    return {
        "ruleId": rule,
        "ruleIndex": list(RULES).index(rule),
        "level": "error" if entry.verdict == "failed" or (entry.verdict == "backdoored" and _kept(fleet, entry)) else "warning",
        "message": _message(f"{entry.verdict}: {visible(entry.model)}: {one_line(entry.reason)}{_texts(entry)}{_over_all(fleet, entry)}"),
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": quote(entry.file, errors="surrogateescape")}}}],
        "partialFingerprints": {"bdaudit/v1": _fingerprint(rule, entry)},
    }


def _kept(fleet: Fleet, entry: Entry) -> bool:
    test = fleet.test_of(entry)
    return test is None or test.holm <= fleet.rate.level


def _over_all(fleet: Fleet, entry: Entry) -> str:
    test = fleet.test_of(entry)
    if test is None:
        return ""
    tail = ", which rests on an extrapolated tail" if test.extrapolated else ""
    kept = "" if _kept(fleet, entry) else ": one alarm that clean models give by chance"
    return f"; over {fleet.rate.models:,} models: p by Holm {p_value(test.holm)}{tail}{kept}"


def _texts(entry: Entry) -> str:
    texts = ", ".join(told(each.text) for each in entry.found[:5])
    more = len(entry.found) - 5 + entry.more
    return f"; {texts}{f' and {more} more' if more > 0 else ''}" if texts else ""


def _fingerprint(rule: str, entry: Entry) -> str:
    """The same for the model and what was found in it, wherever its report lies."""
    said = "\x1f".join([rule, entry.verb, entry.model, *sorted(each.key for each in entry.found)])
    return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()


def _message(text: str) -> dict[str, str]:
    return {"text": _inert(text)}


def _inert(text: str) -> str:
    """Brackets and braces as code points: a viewer reads links and places in a message."""
    return "".join(code_point(c) if c in "[]{}" else c for c in text)
