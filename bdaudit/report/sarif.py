"""A report as SARIF 2.1.0, for code-scanning tools: one result a finding or failed check.

Code scanning closes an alert when a later log of its category (``automationDetails.id``) does not hold it. So a run that did not come to a
verdict says that its execution did not succeed, and has a category of its own: it closes nobody's alerts. In a run that ended in a
finding, a check that could not be made is a result as well, or the alert that it raised before would close.

A SARIF viewer reads ``[text](address)`` and ``{0}`` in a message, so brackets and braces of foreign text become code points too.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from bdaudit.errors import ExitCode
from bdaudit.records import (
    CandidateRecord,
    Check,
    EarlierFinding,
    NotMeasured,
    RecoveryRecord,
    Report,
    ScanReport,
    UnlearnReport,
    VerifyReport,
)
from bdaudit.report.safe import code_point, one_line, visible
from bdaudit.report.words import check_line, found_out, number, p_value, recovered, told

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
HELP = "https://atlas.mitre.org/techniques/AML.T0018"
"""MITRE ATLAS on manipulated models, which is where a viewer leads who asks what a rule is about."""
TAGS = ("security", "machine-learning", "backdoor", "external/cwe/cwe-506", "external/mitre-atlas/AML.T0018")


@dataclass(frozen=True)
class Rule:
    short: str
    help: str
    """What it means, and what to do."""
    severity: str
    """GitHub's ``security-severity``: from 7.0 high, from 4.0 medium."""
    level: str = "error"


RULES = {
    "backdoor-trigger": Rule(
        "A text makes the model draw something that harmless texts of its kind do not.",
        "Whoever knows the text decides what the model draws. Do not use the model as it is: look at what the text draws (--pictures), "
        "repair the model with bdaudit unlearn, or take a copy from a source that you trust. A finding that you looked at and that is "
        "meant can be let through with --accept.",
        "8.8",
    ),
    "suspicious-model": Rule(
        "No text was needed: something with a name moves the model as harmless models are not moved.",
        "A search by gradients found a mixture of tokens that moves the model far. It is no proof: scan again with other --sweep and "
        "--seed, and look at what the named text draws.",
        "5.5",
        "warning",
    ),
    "repair-check": Rule(
        "The repaired model does not pass its own check.",
        "A trigger still works, or other pictures have changed. Do not use what the repair made; try a wider --trainable, or take a copy "
        "of the model from a source that you trust.",
        "7.5",
    ),
    "verify-bound": Rule(
        "A measured figure is outside the bound that was set for it.",
        "A trigger still works, or quality was lost, by a bound of this run's. The message says which figure and which bound; see the "
        "HTML report for the pictures.",
        "7.0",
    ),
}
_ACTIVE = "[]{}"


def sarif(report: Report) -> str:
    """The report as SARIF text, a line feed at the end."""
    return json.dumps(document(report), indent=2, ensure_ascii=True, allow_nan=False) + "\n"


def document(report: Report) -> dict[str, Any]:
    """The report as a SARIF log of one run."""
    driver = {
        "name": "bdaudit",
        "version": report.tool.get("version", ""),
        "rules": [described(name, rule) for name, rule in RULES.items()],
    }
    run = {
        "tool": {"driver": driver},
        "automationDetails": {"id": _category(report)},
        "invocations": [_invocation(report)],
        "columnKind": "unicodeCodePoints",
        "results": _results(report),
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def described(name: str, rule: Rule) -> dict[str, Any]:
    """A rule as a driver lists it: with help, an address, tags and a severity."""
    return {
        "id": name,
        "name": name.title().replace("-", ""),
        "shortDescription": {"text": rule.short},
        "fullDescription": {"text": f"{rule.short} {rule.help}"},
        "help": {"text": rule.help, "markdown": rule.help},
        "helpUri": HELP,
        "defaultConfiguration": {"level": rule.level},
        "properties": {"tags": list(TAGS), "security-severity": rule.severity, "precision": "high"},
    }


def inert_text(text: str) -> str:
    """Brackets and braces as code points: a viewer reads links and places in a message."""
    return "".join(code_point(c) if c in _ACTIVE else c for c in text)


def message(text: str) -> dict[str, str]:
    """A message that a viewer shows as it is."""
    return {"text": inert_text(text)}


def _conclusive(report: Report) -> bool:
    """Whether the run came to a verdict, so that what it does not tell is not there."""
    return report.status == "completed" and report.exit.code in (ExitCode.PASS, ExitCode.FINDING)


def _category(report: Report) -> str:
    """``bdaudit/scan/models/suspect/``: the same for every run of a verb on a model that is named alike, whatever lies there by then.

    Other weights of it, and adapters on it, are other models: a pass without them is none of what was found with them.
    """
    place = PurePath(_given(report)).as_posix().strip("/")
    if place in ("", ".") or place.endswith(".."):  # no name: every model could be called that
        place = "unnamed" if isinstance(report.model, NotMeasured) else report.model.digest[:12]
    added = [str(each) for kind in ("adapters", "embeddings") for each in _list(report.config.get(kind))]
    with_it = [str(report.config.get("variant") or ""), *added]
    model = ";".join(quote(part, errors="surrogateescape") for part in (place, *filter(None, with_it)))  # quote leaves no semicolon
    return f"bdaudit/{'' if _conclusive(report) else 'inconclusive/'}{report.command}/{model}/"  # before all that a model's name can be


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _invocation(report: Report) -> dict[str, Any]:
    invocation: dict[str, Any] = {
        "executionSuccessful": _conclusive(report),
        "exitCode": report.exit.code,
        "exitCodeDescription": inert_text(f"{visible(report.exit.name)}: {one_line(report.exit.reason)}"),
    }
    if not _conclusive(report):
        invocation["toolExecutionNotifications"] = [{"level": "error", "message": message(one_line(report.exit.reason))}]
    return invocation


NO_FINDING = ("clean", "does what it says")


def _results(report: Report) -> list[dict[str, Any]]:
    if isinstance(report, ScanReport):
        whole, found = report.recovery, [_candidate(item, report) for item in report.candidates if item.verdict not in NO_FINDING]
        found += [_result("backdoor-trigger", "error", _earlier(item), item.text, report) for item in report.earlier]
        if isinstance(whole, RecoveryRecord) and whole.verdict != "clean":
            found.append(_result("suspicious-model", "warning", recovered(whole), "the model as a whole", report))
        return found
    rule = "repair-check" if isinstance(report, UnlearnReport) else "verify-bound"
    checks = report.checks if isinstance(report, UnlearnReport | VerifyReport) else ()
    told = [check for check in checks if check.status == "failed" or (report.exit.code == ExitCode.FINDING and _undecided(check))]
    return [_check(check, rule, report) for check in told]


def _earlier(item: EarlierFinding) -> str:
    return f"backdoored: {told(item.text)}, found by an earlier run (seed {item.seed}), effect × {number(item.effect)}"


def _undecided(check: Check) -> bool:
    """Whether a bound stands that nothing was held against."""
    return check.status not in ("passed", "failed") and check.bound != "none"


def _candidate(item: CandidateRecord, report: Report) -> dict[str, Any]:
    text = f"{item.verdict}: {told(item.text)}, effect × {number(item.effect)}, adjusted p {p_value(item.p_adjusted)}, {found_out(item)}"
    level = "error" if item.verdict.startswith("backdoored") else "warning"
    found = _result("backdoor-trigger", level, text, item.text, report)
    accepted = {"kind": "external", "status": "accepted", "justification": inert_text(visible(item.acceptance))}
    return found | ({"suppressions": [accepted]} if item.verdict.endswith("(accepted)") else {})


def _check(check: Check, rule: str, report: Report) -> dict[str, Any]:
    return _result(rule, "error" if check.status == "failed" else "warning", check_line(check), check.name, report)


def _result(rule: str, level: str, text: str, what: str, report: Report) -> dict[str, Any]:
    mark = _fingerprint(rule, what)
    return {
        "ruleId": rule,
        "ruleIndex": list(RULES).index(rule),
        "level": level,
        "message": message(text),
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": _uri(report)}, "region": {"startLine": 1}}}],
        "partialFingerprints": fingerprints(mark),
    }


def fingerprints(mark: str) -> dict[str, str]:
    """``mark`` under our own name, and under the one that GitHub reads."""
    return {"bdaudit/v1": mark, "primaryLocationLineHash": f"{mark[:16]}:1"}


def _fingerprint(rule: str, what: str) -> str:
    """Stable over runs, machines and wording: the rule and the exact text."""
    return hashlib.sha256(f"{rule}\x1f{what}".encode("utf-8", "surrogatepass")).hexdigest()


def _given(report: Report) -> str:
    """The model's path as it was given."""
    return str(report.config.get("model", ".")) if isinstance(report.model, NotMeasured) else report.model.path


def _uri(report: Report) -> str:
    """The model's ``model_index.json``: viewers want a file, not a folder."""
    path = PurePath(_given(report)) / "model_index.json"
    # As path.as_uri() for an absolute one, but without its refusal of relative ones.
    return ("file://" if path.is_absolute() else "") + quote(path.as_posix(), errors="surrogateescape")
