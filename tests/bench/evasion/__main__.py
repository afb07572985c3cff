"""Attackers with the scan's source and its gradients: ``python -m tests.bench.evasion --work FOLDER`` from the repository's root.

Each starts from a fixture that carries a working attack and is trained on until the scan, as it was when the attack was made, passes it
(``attackers.py`` says how). Models are kept in FOLDER, figures in the results; what is there is not made or measured again.

    python -m tests.bench.evasion --work FOLDER                 # make, grade and scan all with this checkout's scan, three seeds
    python -m tests.bench.evasion --work FOLDER NAME ...        # only these
    python -m tests.bench.evasion --work FOLDER --only grade    # one stage alone: make, grade or scan
    python -m tests.bench.evasion --work FOLDER --checkout DIR  # scan as another checkout does (by its .venv)
    python -m tests.bench.evasion --work FOLDER --clean         # clean models that were taught nothing: what is flagged is false
    python -m tests.bench.evasion --table                       # print the tables from the results
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tests.bench.evasion import clean, making, measuring, tables
from tests.bench.evasion.attackers import ATTACKERS, Attacker
from tests.bench.recording import Cells, rounded

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "tests" / "bench" / "results" / "evasion.json"
SEEDS = (0, 1, 2)
STAGES = ("make", "grade", "scan")


def interpreter(checkout: Path) -> str:
    """The Python that runs a checkout's scan."""
    own = checkout / ".venv" / "bin" / "python"
    return str(own) if own.exists() and checkout != ROOT else sys.executable


def commit(checkout: Path) -> str:
    """What a checkout's scans are kept under."""
    said = subprocess.run(["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    return said.stdout.strip()


def scans(cells: Cells, name: str, folder: Path, trigger: str, checkout: Path, seeds: Sequence[int]) -> None:
    """The scan's verdicts on one model, a seed at a time."""
    label = commit(checkout)
    for seed in seeds:
        row: dict[str, Any] = cells.cells[name]
        done = row.setdefault("scans", {}).setdefault(label, {})
        if str(seed) not in done:
            done[str(seed)] = rounded(4, measuring.scanned(folder, trigger, seed, interpreter(checkout)))
            cells.put(name, row)


def attacked(cells: Cells, attacker: Attacker, work: Path, stages: Sequence[str], checkout: Path, seeds: Sequence[int]) -> None:
    """One attacker, as far as it is asked for."""
    folder = making.make(attacker, work) if "make" in stages else work / attacker.name
    row = cells.cells.get(attacker.name) or tables.told(attacker)
    if "grade" in stages and "attack" not in row:
        cells.put(attacker.name, {**row, "attack": rounded(4, measuring.graded(attacker, folder))})
    if "scan" in stages and folder.exists():
        cells.cells.setdefault(attacker.name, row)
        scans(cells, attacker.name, folder, attacker.twin.trigger, checkout, seeds)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.evasion", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="only these models")
    parser.add_argument("--work", type=Path, help="where models are kept")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the JSON document")
    parser.add_argument("--only", choices=STAGES, help="this stage alone")
    parser.add_argument("--clean", action="store_true", help="the clean models, in place of the attackers")
    parser.add_argument("--checkout", type=Path, default=ROOT, help="whose scan (default: this one's)")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="of the scan")
    parser.add_argument("--table", action="store_true", help="only print the tables")
    arguments = parser.parse_args()
    cells = Cells(arguments.out)
    if not arguments.table:
        if arguments.work is None:
            parser.error("--work FOLDER is needed")
        torch.set_num_threads(1)
        stages = [arguments.only] if arguments.only else list(STAGES)
        arguments.work.mkdir(parents=True, exist_ok=True)
        if arguments.clean:
            for spec in clean.SPECS:
                if not arguments.names or spec.name in arguments.names:
                    folder = clean.make(spec, arguments.work)
                    if "scan" in stages:
                        cells.cells.setdefault(spec.name, {"clean": True})
                        scans(cells, spec.name, folder, "", arguments.checkout.resolve(), arguments.seeds)
        for attacker in () if arguments.clean else ATTACKERS:
            if not arguments.names or attacker.name in arguments.names:
                attacked(cells, attacker, arguments.work, stages, arguments.checkout.resolve(), arguments.seeds)
    print(tables.table(cells.cells))


if __name__ == "__main__":
    main()
