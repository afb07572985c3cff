"""A scan through real Ray whose workers and whose own process are killed ends in the report of one that nobody touched.

Three kills here; ``tests/bench/workers.py`` has a hundred.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from bdaudit.config import ScanConfig
from bdaudit.scan.opening import ScanSettings
from bdaudit.scan.run import run_scan
from tests.small import OVERRIDING, PROMPTS
from tests.workers.test_ray_workers import children

SETTINGS = ScanSettings(per_kind=8, prompt_words=4)
PROGRAM = """
import sys
from dataclasses import replace
from pathlib import Path
from bdaudit.report.deliver import write
from bdaudit.scan.run import run_scan
from tests.workers.test_kills import SETTINGS, asked

model, folder, workers = sys.argv[1:]
config = replace(asked(Path(model)), workers=workers, state=Path(folder) / "state")
write(run_scan(config, settings=SETTINGS), Path(folder) / "scan.json")
"""
LONGEST = 600.0


def asked(model: Path) -> ScanConfig:
    return ScanConfig(model=model, candidates=(OVERRIDING, "cat"), prompts=PROMPTS, effort="low", seed=5, device="cpu")


def begun(model: Path, folder: Path, workers: int) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(model), str(folder), str(workers)], env=environment)


def at_work(run: int) -> list[int]:
    """Processes of its workers that have blocks in their hands; Ray gives each the title of the method that it runs."""
    names = {process: Path(f"/proc/{process}/cmdline") for process in children(run)}
    return [process for process, file in names.items() if file.is_file() and file.read_bytes().startswith(b"ray::Member.done")]


def killed_once_at_work(run: subprocess.Popen[bytes], folder: Path, more: int) -> None:
    """Kill a worker that is at work as soon as ``more`` blocks have been kept than there are."""
    before, until = len(list(folder.glob("state/kept-*"))), time.monotonic() + LONGEST
    while True:
        assert run.poll() is None, "the run ended before a worker could be killed"
        assert time.monotonic() < until, "the run does nothing"
        for process in at_work(run.pid) if len(list(folder.glob("state/kept-*"))) >= before + more else []:
            os.kill(process, signal.SIGSTOP)
            if process in at_work(run.pid):  # still, and it cannot end its blocks any more
                os.kill(process, signal.SIGKILL)
                return
            os.kill(process, signal.SIGCONT)
        time.sleep(0.02)


def told(report: Any) -> Any:
    for name in ("created_at", "timings", "repeat"):
        del report[name]
    report["config"] |= {"workers": "", "state": ""}
    report["calibration"] |= {"forward_passes": 0, "forward_passes_per_candidate": 0}  # what was kept is not run again
    return report


def test_a_worker_then_the_run_itself_then_a_worker_again(tiny_model: Path, tmp_path: Path) -> None:
    from bdaudit.report.document import values

    first = begun(tiny_model, tmp_path, 2)
    try:
        killed_once_at_work(first, tmp_path, 4)
        assert first.poll() is None, "it goes on without that worker"
    finally:
        first.kill()
        first.wait()
    kept = len(list(tmp_path.glob("state/kept-*")))
    second = begun(tiny_model, tmp_path, 3)
    try:
        killed_once_at_work(second, tmp_path, 2)
        assert second.wait(LONGEST) == 0
    finally:
        second.kill()
    assert kept > 3
    found = told(json.loads((tmp_path / "scan.json").read_text()))
    assert any("was lost" in note for note in found["coverage"]["notes"])
    alone = told(json.loads(json.dumps(values(run_scan(replace(asked(tiny_model)), settings=SETTINGS)))))
    found["coverage"]["notes"] = alone["coverage"]["notes"]
    assert found == alone
