"""What passes buy, and what the spread of the draws and the screen are for: ``python -m tests.bench.power.curve --work FOLDER``.

FOLDER holds a round's models (``python -m tests.bench.power --round ROUND --work FOLDER`` makes them), ``--evasion FOLDER`` the
attackers' (``python -m tests.bench.evasion``). Each model is scanned once in each of ``SETTINGS``: the three of ``--effort``; the default
with its draws at three known timesteps, as the scan before had them; and the default with nothing screened out, where all texts and
controls are measured in full and followed. A scan that is recorded in ``results/curve.json`` is not run again. ``--table`` only prints.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

import bdaudit.measure.draws
import bdaudit.scan.stratum
from bdaudit.config import ScanConfig
from bdaudit.models.suspect import Suspect
from bdaudit.records import Calibration
from bdaudit.scan.run import run_scan
from bdaudit.untrusted.text_files import read_texts
from tests.bench.evasion.attackers import ATTACKERS
from tests.bench.power import measuring, models
from tests.bench.power.bases import FIXTURES
from tests.bench.power.figures import LIFT, auroc
from tests.bench.recording import Cells, rounded

RESULTS = Path(__file__).resolve().parents[1] / "results" / "curve.json"
CLEAN = 16
"""Models that were taught nothing, of each base, that are scanned at most."""
ROUNDS = {"fresh": models.fresh, "joint": models.joint}
POINTS = (1.0, 0.6, 0.3)
"""Shares of the path at which the scan before looked."""


@contextlib.contextmanager
def unspread() -> Iterator[None]:
    """All draws at ``POINTS``."""

    def known(suspect: Suspect, traits: Sequence[object], *_: object) -> Tensor:
        grid = suspect.schedule.times(bdaudit.measure.draws.GRID, 1.0)
        return grid[[min(len(grid) - 1, int((1 - POINTS[i % 3]) * len(grid))) for i in range(len(traits))]].to(suspect.device)

    with patch.object(bdaudit.measure.draws, "_spread", known):
        yield


@contextlib.contextmanager
def unscreened() -> Iterator[None]:
    """Every text goes on to the end."""
    with patch.object(bdaudit.scan.stratum, "KEPT", 1.0), patch.object(bdaudit.scan.stratum, "FOLLOWED", 1.0):
        yield


Setting = tuple[dict[str, Any], Callable[[], AbstractContextManager[None]]]
SETTINGS: dict[str, Setting] = {
    "--effort low": ({"effort": "low"}, contextlib.nullcontext),
    "--effort standard": ({}, contextlib.nullcontext),
    "--effort high": ({"effort": "high"}, contextlib.nullcontext),
    "known timesteps": ({}, unspread),
    "no screen": ({}, unscreened),
}


def scanned(folder: Path, trigger: str, texts: Sequence[str], seed: int, setting: Setting) -> dict[str, Any]:
    """One scan."""
    flags, around = setting
    with around():
        report = run_scan(ScanConfig(model=folder, candidates=tuple(texts), prompts=measuring.prompts(), seed=seed, **flags))
    assert isinstance(report.calibration, Calibration)
    own = next((record for record in report.candidates if record.text == trigger), None)
    return {
        "exit": report.exit.code,
        "passes": report.calibration.forward_passes,
        "score": max(record.score for record in report.candidates),
        "found": own is not None and own.verdict == "backdoored",
        "p adjusted": own.p_adjusted if own else min(record.p_adjusted for record in report.candidates),
    }


def told(specs: Sequence[models.Spec], work: Path) -> list[tuple[str, str, bool]]:
    """Name, trigger, and whether the attack works, of the models that are there; clean ones up to ``CLEAN`` a base."""
    rows = list[tuple[str, str, bool]]()
    for base in dict.fromkeys(spec.base for spec in specs):
        own = [spec for spec in specs if spec.base == base and (work / "models" / spec.name).exists()]
        clean = [spec for spec in own if spec.twin.family == "benign" and not spec.twin.trigger][:CLEAN]
        for spec in [*(spec for spec in own if spec.trigger), *clean]:
            graded = work / "results" / f"{spec.name}.attack.json"
            attack = json.loads(graded.read_text(encoding="utf-8")) if spec.trigger and graded.exists() else None
            if attack or not spec.trigger:
                rows.append((spec.name, spec.trigger, bool(attack) and attack["asr"]["value"] - attack["floor"]["value"] >= LIFT))
    return rows


def table(cells: dict[str, Any]) -> str:
    """In Markdown."""
    head = "| setting | passes | attacks that work, found | AUROC over models | clean models accused | attackers with the source, stopped |"
    lines = [head, "|---" * 6 + "|"]
    for setting, of in cells.items():
        works, clean, evading = ([c for c in of.values() if c["is"] == kind] for kind in ("works", "clean", "evading"))
        found, false = sum(c["found"] for c in works), sum(c["exit"] != 0 for c in clean)
        area = auroc([c["score"] for c in works], [c["score"] for c in clean]) if works and clean else float("nan")
        passes = int(np.median([c["passes"] for c in [*works, *clean]])) if works or clean else 0
        stopped = f"{sum(c['exit'] != 0 for c in evading)} of {len(evading)}"
        lines.append(f"| {setting} | {passes:,} | {found} of {len(works)} | {area:.3f} | {false} of {len(clean)} | {stopped} |")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.power.curve", description=__doc__)
    parser.add_argument("settings", nargs="*", help="only these")
    parser.add_argument("--work", type=Path, help="a round's models")
    parser.add_argument("--round", choices=ROUNDS, default="joint", help="which round they are of (default: joint)")
    parser.add_argument("--evasion", type=Path, help="the attackers' models")
    parser.add_argument("--table", action="store_true", help="only print the table")
    arguments = parser.parse_args()
    cells = Cells(RESULTS)
    if not arguments.table:
        torch.set_num_threads(1)
        specs = {spec.name: spec for spec in ROUNDS[arguments.round]()}
        listed = read_texts(FIXTURES / "candidates.txt")
        for setting in arguments.settings or SETTINGS:
            of: dict[str, Any] = dict(cells.cells.get(setting, {}))
            for name, trigger, works in told(list(specs.values()), arguments.work) if arguments.work else ():
                if name not in of:
                    found = scanned(
                        arguments.work / "models" / name, trigger, specs[name].candidates, measuring.seed_of(specs[name]), SETTINGS[setting]
                    )
                    of[name] = rounded(4, {"is": "works" if works else "weak" if trigger else "clean", **found})
                    cells.put(setting, of)
            for attacker in ATTACKERS if arguments.evasion else ():
                folder, trigger = arguments.evasion / attacker.name, attacker.twin.trigger
                if attacker.name not in of and folder.exists():
                    texts = listed if trigger in listed else (*listed, trigger)
                    of[attacker.name] = rounded(4, {"is": "evading", **scanned(folder, trigger, texts, 0, SETTINGS[setting])})
                    cells.put(setting, of)
    print(table(cells.cells))


if __name__ == "__main__":
    main()
