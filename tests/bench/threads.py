"""What torch's waiting threads cost on a machine that has other work: ``python tests/bench/threads.py [PATH]``.

The front page's first command with GNU OpenMP's own spin count, with the one that the command line sets, and with a smaller one, in turn:
alone, and beside as many busy processes as there are processors. Processor seconds of the command, and seconds by the clock.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bdaudit.cli import SPIN  # noqa: E402
from tests.bench.end_to_end import FIXTURES, open_model  # noqa: E402
from tests.bench.recording import record, rounded  # noqa: E402

BUSY = "x = 0\nwhile True:\n    x += 1"
DEFAULT = "300000"
"""GNU OpenMP's own, by its manual."""
SMALLER = "1000"


def timed(environment: dict[str, str]) -> dict[str, float]:
    """One scan of a fixture."""
    command = [sys.executable, "-m", "bdaudit", "scan", str(open_model("pixel").path), "--candidates", str(FIXTURES / "candidates.txt"),
               "--prompts", str(FIXTURES / "prompts.txt")]  # fmt: skip
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"processor seconds": processor, "seconds": time.monotonic() - began}


def main() -> None:
    """All settings, idle and beside busy processes; the threads are torch's own choice."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    rows: list[dict[str, Any]] = []
    for neighbours in (0, os.cpu_count() or 1):
        busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(neighbours)]
        try:
            for spin in (DEFAULT, SPIN, SMALLER):
                rows.append(rounded(4, {"busy processes": neighbours, "spin count": int(spin), **timed(plain | {"GOMP_SPINCOUNT": spin})}))
        finally:
            for process in busy:
                process.kill()
                process.wait()
    record({"threads": rows}, 1)


if __name__ == "__main__":
    main()
