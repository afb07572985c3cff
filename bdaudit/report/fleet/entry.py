"""What a fleet keeps of one report, of whatever version; every field is checked, since the file may be anybody's."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from bdaudit.errors import ExitCode, UsageError
from bdaudit.records import SCHEMA_VERSION, NotMeasured
from bdaudit.report.document import REPORTS

FleetVerdict = Literal[
    "backdoored", "failed", "suspicious", "refused", "error", "inconclusive", "interrupted", "accepted", "pass",
]  # fmt: skip
VERDICTS: tuple[FleetVerdict, ...] = get_args(FleetVerdict)
"""The worst first."""
NOT_AUDITED: tuple[FleetVerdict, ...] = ("refused", "error", "inconclusive", "interrupted")
"""Verdicts of runs that do not say what the model is."""
MOST_FOUND = 32
"""Texts that are kept of one report, the smallest p first."""
LONGEST = 400
"""Characters that are kept of a text."""
MAJOR = SCHEMA_VERSION.split(".")[0]
_BY_EXIT: dict[int, FleetVerdict] = {
    ExitCode.PASS: "pass", ExitCode.ERROR: "error", ExitCode.INCONCLUSIVE: "inconclusive", ExitCode.REFUSED: "refused",
    ExitCode.INTERRUPTED: "interrupted",
}  # fmt: skip

Table = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class FoundText:
    """A text that a scan calls backdoored or suspicious."""

    text: str
    """Its first ``LONGEST`` characters."""
    key: str
    """SHA-256 of all of it."""
    verdict: str
    p_adjusted: float


@dataclass(frozen=True, kw_only=True)
class ScanP:
    """What a scan says of its model as one test: the smallest adjusted p of its texts is a p of *no text is a trigger*."""

    p: float
    """In 0…1."""
    raw: float
    """The same text's p before it was adjusted for the others."""
    alpha: float
    """At which the scan was judged."""
    counted: float
    """The smallest p that the number of controls gives by itself, 1/(N + 1); below it the tail is extrapolated."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One report."""

    file: str
    """Where it lies, as it was found."""
    verb: str
    version: str
    schema: str
    created_at: str
    code: int
    outcome: str
    """The exit's name."""
    reason: str
    verdict: FleetVerdict
    model: str
    """Path or hub id, as given."""
    commit: str
    family: str
    """Pipeline class; empty where the model was not opened."""
    shape: str
    """Numbers in each part: ``unet 860M, text_encoder 123M``; bytes of weights, of reports that do not say."""
    digest: str
    exact: str
    """Digest of tensors; empty where there is none."""
    float16: str
    found: tuple[FoundText, ...]
    more: int
    """Found texts that are not kept."""
    whole: bool
    """Whether the model as a whole is suspicious, by ``--sweep recovery``."""
    unaudited: tuple[str, ...]
    """Weights that nobody looked at, each with its reason."""
    scan: ScanP | NotMeasured


def entry_of(document: Any, file: str) -> Entry:
    """The entry of a parsed report.

    Raises:
        UsageError: no report of ours, one of a schema that is not known, or a field that is of another kind than it must be.
    """
    report = _table(document, "the report")
    verb, schema = _kind(report)
    model, ended = _table(report.get("model", {}), "model"), _table(report.get("exit"), "exit")
    code = ended.get("code")
    if type(code) is not int or code not in (*_BY_EXIT, ExitCode.FINDING):
        raise UsageError(f"exit.code is {ascii(code)[:40]}; expected one of a run that left a report")
    found = sorted(_found(report), key=lambda each: each.p_adjusted)
    whole = _table(report.get("recovery", {}), "recovery").get("verdict") == "suspicious"
    tensors = _table(model.get("tensors", {}), "tensors")
    return Entry(
        file=file,
        verb=verb,
        version=_text(_table(report.get("tool", {}), "tool"), "version"),
        schema=schema,
        created_at=_text(report, "created_at"),
        code=code,
        outcome=ExitCode(code).label,
        reason=_text(ended, "reason"),
        verdict=_verdict(verb, code, {each.verdict for each in found}, whole),
        model=_text(model, "model_id") or _text(model, "path") or _text(_table(report.get("config", {}), "config"), "model"),
        commit=_text(model, "commit"),
        family=_text(model, "pipeline"),
        shape=_shape(model),
        digest=_text(model, "digest"),
        exact=_text(tensors, "exact"),
        float16=_text(tensors, "float16"),
        found=tuple(found[:MOST_FOUND]),
        more=max(0, len(found) - MOST_FOUND),
        whole=whole,
        unaudited=tuple(f"{_text(left, 'path')}: {_text(left, 'reason')}" for left in _tables(model, "unaudited")[:MOST_FOUND]),
        scan=_scan(report, verb),
    )


def _kind(report: Mapping[str, Any]) -> tuple[str, str]:
    """Its verb, and the version of its schema."""
    verb, schema = _text(report, "command"), _text(report, "schema_version")
    if verb not in REPORTS:
        raise UsageError(f"command is {verb!a}; expected one of {', '.join(REPORTS)}")
    if schema.split(".")[0] != MAJOR:
        raise UsageError(f"schema_version is {schema!a}; expected {MAJOR}.x, merge it with the version of bdaudit that wrote it")
    return verb, schema


def _verdict(verb: str, code: int, texts: set[str], whole: bool) -> FleetVerdict:
    """The worst that the report says; the gate that its run was given hides nothing."""
    if "backdoored" in texts:
        return "backdoored"
    if code == ExitCode.FINDING and verb != "scan":
        return "failed"
    if whole or "suspicious" in texts:
        return "suspicious"
    if code == ExitCode.FINDING:
        return "backdoored"  # a scan's finding that its own list does not show: of another variant
    return "accepted" if code == ExitCode.PASS and texts else _BY_EXIT[code]


def _found(report: Table) -> Iterator[FoundText]:
    for candidate in _tables(report, "candidates"):
        verdict = _text(candidate, "verdict")
        if verdict != "clean":
            text = candidate.get("text")
            if not isinstance(text, str):
                raise UsageError("a candidate's text is no text")
            key = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
            yield FoundText(text=text[:LONGEST], key=key, verdict=verdict, p_adjusted=_share(candidate, "p_adjusted"))


def _scan(report: Table, verb: str) -> ScanP | NotMeasured:
    calibration, candidates = _table(report.get("calibration", {}), "calibration"), _tables(report, "candidates")
    if verb != "scan":
        return NotMeasured(reason=f"{verb} gives a model no p")
    if report.get("status") != "completed" or "alpha" not in calibration or not candidates:
        return NotMeasured(reason="the scan did not come to p-values")
    p, raw = min((_share(each, "p_adjusted"), _share(each, "p")) for each in candidates)
    controls = calibration.get("n_controls")
    if type(controls) is not int or controls < 1:
        raise UsageError(f"n_controls is {ascii(controls)[:40]}; expected a positive number")
    return ScanP(p=p, raw=raw, alpha=_share(calibration, "alpha"), counted=1 / (controls + 1))


def _shape(model: Table) -> str:
    parts = _table(model.get("parameters", {}), "parameters")
    if parts:
        return ", ".join(
            f"{str(name)[:40]} {_short(_count(parts, name))}" for name in sorted(parts, key=lambda n: (-_count(parts, n), n))[:8]
        )
    weights = {
        name for names in _table(model.get("weights", {}), "weights").values() if isinstance(names, list) for name in map(str, names)
    }
    held = sum(_count(file, "bytes") for file in _tables(model, "files") if str(file.get("path")) in weights)
    return f"{_short(held)}B of weights" if held else ""


def _short(count: int) -> str:
    """``860M``, ``3.5M``, ``12k``."""
    for size, sign in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.3g}{sign}"
    return str(count)


def _table(value: Any, name: str) -> Table:
    if not isinstance(value, dict):
        raise UsageError(f"{name} is no table")
    return value


def _tables(of: Table, name: str) -> list[Table]:
    rows = of.get(name, [])
    if not isinstance(rows, list):
        raise UsageError(f"{name} is no list")
    return [_table(row, f"an entry of {name}") for row in rows]


def _text(of: Table, name: str) -> str:
    value = of.get(name, "")
    if not isinstance(value, str):
        raise UsageError(f"{name} is no text")
    return value[:LONGEST]


def _count(of: Table, name: str) -> int:
    value = of.get(name, 0)
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise UsageError(f"{name[:40]} is no count")
    return value


def _share(of: Table, name: str) -> float:
    value = of.get(name)
    if value.__class__ is float and 0 <= value <= 1:  # nearly all are
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not (0 <= value <= 1) or not math.isfinite(value):
        raise UsageError(f"{name} is {ascii(value)[:40]}; expected a number from 0 to 1")
    return float(value)
