"""Many scans in one process through the Python API, to see that memory stays: ``python tests/bench/soak.py [SCANS] [PATH]``."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from bdaudit.config import ScanConfig
from tests import small
from tests.bench.recording import record

WARM = 10
"""Scans after which memory must stay where it is."""
MOST = 0.02


def resident() -> int:
    """Bytes of this process that are in memory now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def growth(sizes: list[int]) -> float:
    """How far the mean of the last tenth lies above that of the tenth right after the first scans, as a share of it."""
    warm = sizes[WARM:]
    part = max(1, len(warm) // 10)
    first, last = sum(warm[:part]) / part, sum(warm[-part:]) / part
    return last / first - 1


def soak(config: ScanConfig, scans: int) -> dict[str, Any]:
    """Memory after each of ``scans`` scans."""
    from bdaudit.scan.run import run_scan

    sizes, objects, started, verdicts = [], [], time.monotonic(), set()
    for _ in range(scans):
        report = run_scan(config)
        verdicts.add(tuple((c.text, c.verdict, c.p) for c in report.candidates))
        del report
        gc.collect()
        sizes.append(resident())
        objects.append(len(gc.get_objects()))
    return {
        "scans": scans,
        "seconds": round(time.monotonic() - started, 1),
        "MB after the first, the tenth, the last": [round(sizes[i] / 1e6, 1) for i in (0, min(WARM, scans) - 1, -1)],
        "growth after the tenth": round(growth(sizes), 4),
        "flat": growth(sizes) <= MOST,
        "Python objects after the tenth and the last": [objects[min(WARM, scans) - 1], objects[-1]],
        "different results": len(verdicts),
        "MB": [round(size / 1e6, 1) for size in sizes],
    }


def main() -> None:
    import torch

    torch.set_num_threads(1)
    scans = max(2 * WARM, int(sys.argv[1]) if len(sys.argv) > 1 else 200)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        model = small.write(Path(folder) / "model")
        texts = (small.LONG_TRIGGER, "cf", "zero\u200bwidth")
        config = ScanConfig(model=model, candidates=texts, prompts=small.PROMPTS, effort="low", device="cpu")
        record(soak(config, scans), 2)


if __name__ == "__main__":
    main()
