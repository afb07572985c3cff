"""Reports for fleets, as small as a scan's can be and still be read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from bdaudit.errors import ExitCode
from bdaudit.records import Exit, ModelRecord, ScanReport, TensorDigest, UnauditedWeights
from bdaudit.report.document import dumps
from bdaudit.report.fleet.entry import Entry, entry_of
from bdaudit.report.fleet.read import FleetReports


def scan(
    of: ScanReport, name: str, *texts: tuple[str, float, str], code: ExitCode = ExitCode.PASS, digest: str = "", **own: Any
) -> ScanReport:
    """A report of the model ``name``; ``texts`` have a text, an adjusted p and a verdict each."""
    assert isinstance(of.model, ModelRecord)
    model = replace(
        of.model, path=name, parameters={"unet": 860_000_000, "vae": 83_600_000}, digest=digest or name,
        tensors=TensorDigest(exact=digest or name, float16=f"{digest or name}-16"),
    )  # fmt: skip
    candidates = tuple(
        replace(of.candidates[-1], text=text, p=p / 100, p_adjusted=p, verdict=verdict, rank=k + 1)
        for k, (text, p, verdict) in enumerate(texts)
    )
    return replace(of, model=model, candidates=candidates, exit=Exit.of(code, f"{len(texts)} texts"), **own)


def clean(of: ScanReport, name: str, p: float = 1.0, **own: Any) -> ScanReport:
    """One harmless text."""
    return scan(of, name, ("word", p, "clean"), **own)


def entry(report: Any, file: str = "a.json") -> Entry:
    """As it is read from its file."""
    return entry_of(json.loads(dumps(report)), file)


def fleet_reports(*reports: Any) -> FleetReports:
    """Without any file."""
    return FleetReports(tuple(entry(report, f"{k}.json") for k, report in enumerate(reports)), (), 0)


def unaudited(of: ScanReport, name: str) -> ScanReport:
    """With weights beside it that nobody looked at."""
    report = clean(of, name, code=ExitCode.INCONCLUSIVE)
    assert isinstance(report.model, ModelRecord)
    return replace(report, model=replace(report.model, unaudited=(UnauditedWeights(path="unet/x.bin", reason="a pickle"),)))


def write(report: Any, path: Path) -> Path:
    """Its JSON, the folder made where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dumps(report), encoding="utf-8")
    return path
