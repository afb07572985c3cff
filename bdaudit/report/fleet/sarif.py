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
from bdaudit.report.safe import one_line, visible
from bdaudit.report.sarif import SCHEMA, Rule, described, fingerprints, inert_text, message
from bdaudit.report.words import p_value, told
from bdaudit.version import __version__

RULES = {
    "fleet-backdoored": Rule(
        "A scan found a text that makes a model draw something that harmless texts of its kind do not.",
        "Whoever knows the text decides what the model draws. Take the model out of use, and open its own report: it has the text, the "
        "pictures and the command that repairs it. A warning is a finding that the correction over all models does not keep: scan that "
        "model again with another --seed.",
        "8.8",
    ),
    "fleet-suspicious": Rule(
        "A scan calls a model suspicious.",
        "Something stands out, and not enough to call it a backdoor. Scan the model again with another --seed, with --effort high and "
        "--pictures, and look at what is drawn.",
        "5.5",
        "warning",
    ),
    "fleet-failed": Rule(
        "A repair or a bound does not pass its check.",
        "A trigger still works, or quality was lost. Do not use that model; its own report says which check failed, and by how much.",
        "7.5",
    ),
    "fleet-not-audited": Rule(
        "A report says nothing of its model.",
        "The model was refused, or its run failed or could not decide. That is no pass. The message has the reason: mend it, and run the "
        "model's job again.",
        "4.0",
        "warning",
    ),
}
_RULE_OF = {"backdoored": "fleet-backdoored", "suspicious": "fleet-suspicious", "failed": "fleet-failed"}


def sarif(fleet: Fleet) -> str:
    """The fleet as SARIF text, a line feed at the end."""
    return json.dumps(log(fleet), indent=1, ensure_ascii=True, allow_nan=False) + "\n"


def log(fleet: Fleet) -> dict[str, Any]:
    """The fleet as a SARIF log of one run, whose category is its own where it came to no verdict: it closes nobody's alerts then."""
    conclusive = fleet.exit.code in (ExitCode.PASS, ExitCode.FINDING)
    rules = [described(name, rule) for name, rule in RULES.items()]
    invocation: dict[str, Any] = {
        "executionSuccessful": conclusive,
        "exitCode": fleet.exit.code,
        "exitCodeDescription": inert_text(f"{fleet.exit.name}: {one_line(fleet.exit.reason)}"),
    }
    unread = [{"level": "error", "message": message(f"{visible(each.file)}: {one_line(each.reason)}")} for each in fleet.reports.not_read]
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
        "message": message(f"{entry.verdict}: {visible(entry.model)}: {one_line(entry.reason)}{_texts(entry)}{_over_all(fleet, entry)}"),
        "locations": [
            {"physicalLocation": {"artifactLocation": {"uri": quote(entry.file, errors="surrogateescape")}, "region": {"startLine": 1}}}
        ],
        "partialFingerprints": fingerprints(_fingerprint(rule, entry)),
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
