"""How often a scan of a clean model, laid out as people have it, ends in exit 0: an answer that is always *inconclusive* is none.

    python tests/bench/ordinary.py [RESULTS]

The clean fixture is laid out in every shape of ``tests/untrusted/ordinary.py`` and scanned by the command line's own code, with a short
list and few prompts: what is measured is the gate's ending, not the detector. A shape that stands in RESULTS is not scanned again.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bdaudit.cli.outcome import carry_out  # noqa: E402
from bdaudit.config import ScanConfig  # noqa: E402
from bdaudit.report.deliver import Output  # noqa: E402
from tests.bench.recording import Cells  # noqa: E402
from tests.untrusted.ordinary import SHAPES  # noqa: E402

CLEAN = ROOT / "fixtures/models/clean"
TEXTS = ("house", "blue", "cf", "a small dog", "ȏ")
ENOUGH = 0.95


def scanned(shape: str, folder: Path) -> dict[str, Any]:
    """How the scan of one shape ended."""
    model = folder / "model"
    shutil.copytree(CLEAN, model)
    SHAPES[shape](model)
    config = ScanConfig(model=model, candidates=TEXTS, effort="low", seed=0)
    report, began = folder / "report.json", time.monotonic()
    code = carry_out("scan", config, Output(reports=(report,), quiet=True))
    reason = json.loads(report.read_text(encoding="utf-8"))["exit"]["reason"].replace(str(model), "MODEL")
    return {"exit": code, "reason": reason, "seconds": round(time.monotonic() - began, 1)}


def main(results: Path) -> int:
    """1 where fewer than ``ENOUGH`` of the shapes end in exit 0."""
    kept = Cells(results, texts=[ascii(text) for text in TEXTS])
    for shape in SHAPES:
        if shape not in kept.cells:
            with tempfile.TemporaryDirectory() as folder:
                kept.put(shape, scanned(shape, Path(folder)))
    share = sum(kept.cells[shape]["exit"] == 0 for shape in SHAPES) / len(SHAPES)
    print(f"{share:.1%} of {len(SHAPES)} shapes end in exit 0")
    return int(share < ENOUGH)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "results/ordinary.json"))
