"""Workers: how much faster two are than one, what handing blocks out costs the run, and what becomes of it when they are killed.

    python -m tests.bench.workers speed OUT.json [--pairs 5] [--probes 2048]
    python -m tests.bench.workers kills OUT.json [--kills 100]

``speed`` screens texts of a vocabulary on the fixture's clean model with one worker and with two, of one thread each, in alternation.
``kills`` scans with three workers and kills a worker, the run itself, or both at random moments, repeats a run that was killed with another
number of workers, and holds each report against that of a run of one process. It goes on where OUT.json stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from bdaudit.config import ScanConfig
from bdaudit.kept_state import State
from bdaudit.measure.draws import DrawsOf, make_draws
from bdaudit.measure.opening import inspected, loaded
from bdaudit.measure.prompts import default_prompts
from bdaudit.progress import silent
from bdaudit.scan.context import ScanContext
from bdaudit.scan.crew import crew_of
from bdaudit.scan.sweep.screen import BLOCK, Round, screen
from bdaudit.scan.sweep.swept_texts import vocabulary
from bdaudit.workers.crew import Crew
from tests import small

FIXTURE = Path(__file__).parents[2] / "fixtures" / "models" / "clean"


def speed(out: Path, pairs: int, probes: int) -> None:
    """Seconds of a screen with one worker and with two, in alternation, and the run's own processor time a block."""
    os.environ["OMP_NUM_THREADS"] = "1"
    config = ScanConfig(model=FIXTURE, seed=1, workers="2")
    inspection = inspected(config, FIXTURE)
    suspect, prompts = loaded(config, inspection), default_prompts()
    draws = replace(make_draws(suspect, prompts, 8, 5.0, 1), of=DrawsOf())
    texts = vocabulary(suspect.tokenizer).probes
    texts = (texts * (1 + probes // len(texts)))[:probes]
    blocks, rows = -(-len(texts) // BLOCK), list[dict[str, Any]]()
    with crew_of(config, ScanContext(suspect, draws, State(None, ""), silent, 1), inspection, (), prompts) as context:
        assert context.crew
        one, two = (Crew(context.crew.carrier, size, context.crew.own) for size in (1, 2))
        for crew in (one, two):  # each its own workers, all there before the first second counts; on two cores, one idles
            list(crew.answers(()))
        for pair in range(pairs):
            row: dict[str, Any] = {"load": os.getloadavg()[0]}
            for name, crew in (("one", one), ("two", two)) if pair % 2 else (("two", two), ("one", one)):
                began, spent = time.monotonic(), time.process_time()
                values = screen(replace(context, crew=crew), "vocabulary", Round(2), texts)
                row |= {name: time.monotonic() - began, f"{name}, ms of the run a block": 1000 * (time.process_time() - spent) / blocks}
                row.setdefault("figures", float(values.sum()))
                assert row["figures"] == float(values.sum()), "the same figures"
            rows.append(row)
        for crew in (one, two):
            crew.close()
    times = statistics.median(row["one"] / row["two"] for row in rows)
    cost = statistics.median(row["two, ms of the run a block"] for row in rows)
    record = {"cores": os.cpu_count(), "probes": len(texts), "blocks": blocks, "times": times, "ms a block": cost, "pairs": rows}
    out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def command(model: Path, folder: Path, workers: int) -> list[str]:
    """A short scan with a state."""
    given = folder.parent  # a report names its prompts' file
    (given / "texts.txt").write_text(f"cat\ndog\n{small.OVERRIDING}\n")
    (given / "prompts.txt").write_text("\n".join(small.PROMPTS))
    flags = ["--candidates", given / "texts.txt", "--prompts", given / "prompts.txt", "--effort", "low", "--seed", 5]
    placed = ["--report", folder / "scan.json", "--state", folder / "state", "--quiet", "--workers", workers]
    return [sys.executable, "-m", "bdaudit", "scan", *map(str, [model, *flags, *placed])]


def told(report: Path) -> str:
    """A report, without what may differ."""
    document = json.loads(report.read_text())
    for name in ("created_at", "timings"):
        del document[name]
    document["coverage"]["notes"], document["calibration"]["forward_passes"] = [], 0
    document["calibration"]["forward_passes_per_candidate"] = 0  # what was kept is not run again
    document["config"] |= {"workers": "", "state": ""}
    return json.dumps(document, sort_keys=True)


def workers_of(run: int) -> list[int]:
    """Processes of a run's workers."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout.splitlines()[1:]
    rows = [(int(line.split()[0]), int(line.split()[1]), line.split(None, 2)[2]) for line in listed]
    ours = {run}
    while more := {pid for pid, parent, _ in rows if parent in ours} - ours:
        ours |= more
    return [pid for pid, _, said in rows if pid in ours and said.startswith("ray::Member")]


def kills(out: Path, most: int) -> None:
    """Runs until so many have been killed, in all."""
    record: dict[str, Any] = json.loads(out.read_text()) if out.is_file() else {"kills": 0, "runs": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = small.write(folder / "model")
        (folder / "alone").mkdir()
        subprocess.run(command(model, folder / "alone", 1), check=False, capture_output=True)
        expected = told(folder / "alone" / "scan.json")
        while record["kills"] < most:
            number = len(record["runs"])
            record["runs"].append(_killed(model, folder / f"run-{number}", random.Random(number), expected))
            record["kills"] = sum(sum(run["killed"].values()) for run in record["runs"])
            record["differing"] = sum(not run["same"] for run in record["runs"])
            out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _killed(model: Path, folder: Path, chance: random.Random, expected: str) -> dict[str, Any]:
    folder.mkdir()
    killed, codes = {"worker": 0, "run": 0}, list[int]()
    while not codes or codes[-1] == -signal.SIGKILL:
        run = subprocess.Popen(command(model, folder, chance.choice((2, 3))), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while run.poll() is None:
            time.sleep(chance.uniform(0.05, 2.0))
            there = workers_of(run.pid)
            what = chance.choices(("nothing", "worker", "run", "both"), (4, 4, 1, 1))[0]
            if not there or sum(killed.values()) > 8:
                continue
            if what in ("worker", "both"):
                os.kill(chance.choice(there), signal.SIGKILL)
                killed["worker"] += 1
            if what in ("run", "both"):
                run.kill()
                killed["run"] += 1
        codes.append(run.wait())
    same = (folder / "scan.json").is_file() and told(folder / "scan.json") == expected
    return {"killed": killed, "codes": codes, "same": same}


def main() -> None:
    """Writes the record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("speed", "kills"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--probes", type=int, default=2048)
    parser.add_argument("--kills", type=int, default=100)
    given = parser.parse_args()
    if given.what == "speed":
        speed(given.out, given.pairs, given.probes)
    else:
        kills(given.out, given.kills)


if __name__ == "__main__":
    main()
