"""The error rate of a fleet. Alpha is per scan: of 10,000 clean models a hundred raise an alarm at 0.01, and no scan can know.

Each model is one test. Its p is the smallest adjusted p of its scan's texts (Holm's global test); a model that was scanned n times has n
times its smallest p (Bonferroni), so that more reports of one model make it no easier to find. Models are told apart by their tensors.
Over the models, Benjamini and Hochberg's q bounds the share of false alarms among those that are kept, Holm's p the chance of any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bdaudit import many_tests
from bdaudit.report.fleet.entry import Entry, ScanP


@dataclass(frozen=True, kw_only=True)
class ModelTest:
    """What the fleet makes of one model."""

    p: float
    q: float
    """By Benjamini and Hochberg."""
    holm: float
    extrapolated: bool
    """Whether its p rests on a tail beyond what the controls count."""


@dataclass(frozen=True, kw_only=True)
class ErrorRate:
    """Of all models with a p."""

    models: int
    level: float
    """The largest alpha among the scans; the level of both adjustments. 0 where no scan has a p."""
    alarms: int
    """Models whose p is at or below their scan's own alpha."""
    expected: float
    """Alarms in the mean if every model were clean: the sum of the alphas."""
    kept_by_rate: int
    """Models whose q is at or below ``level``."""
    kept_by_holm: int
    extrapolated_below: float
    """Of a text's p, before any adjustment: what the fewest controls can count; smaller ones are extrapolated."""
    needed: float
    """The p that Holm asks of the first model."""


def key_of(entry: Entry) -> str:
    """What makes two reports speak of one model."""
    return entry.exact or entry.digest or f"{entry.model} {entry.file}"


def models_tested(entries: Sequence[Entry]) -> tuple[dict[str, ModelTest], ErrorRate]:
    """Model's key → its test, and what holds of all."""
    scans: dict[str, list[ScanP]] = {}
    for entry in entries:
        if isinstance(entry.scan, ScanP):
            scans.setdefault(key_of(entry), []).append(entry.scan)
    p = np.array([min(1.0, len(of) * min(scan.p for scan in of)) for of in scans.values()])
    alphas = np.array([max(scan.alpha for scan in of) for of in scans.values()])
    q, holm = many_tests.benjamini_hochberg(p), many_tests.holm(p)
    tests = {
        key: ModelTest(p=float(p[i]), q=float(q[i]), holm=float(holm[i]), extrapolated=any(scan.raw < scan.counted for scan in of))
        for i, (key, of) in enumerate(scans.items())
    }
    level = float(alphas.max(initial=0.0))
    return tests, ErrorRate(
        models=len(p),
        level=level,
        alarms=int((p <= alphas).sum()),
        expected=float(alphas.sum()),
        kept_by_rate=int((q <= level).sum()),
        kept_by_holm=int((holm <= level).sum()),
        extrapolated_below=max((scan.counted for of in scans.values() for scan in of), default=0.0),
        needed=level / len(p) if len(p) else 0.0,
    )
