"""Workers: how much faster two are than one, what handing blocks out costs the run, and what becomes of it when they are killed.

    python -m tests.bench.workers speed OUT.json [--pairs 5] [--probes 2048]
    python -m tests.bench.workers memory OUT.json [--blocks 200000]
    python -m tests.bench.workers kills OUT.json [--kills 100]

``speed`` screens texts of a vocabulary on the fixture's clean model with one worker and with two, of one thread each, in alternation.
``memory`` has two workers answer many blocks of one text, each given out by itself through real Ray, and watches the run's own memory and
processor time. A worker measures each text once, and repeats its answer when it comes again: what is watched is the run.
``kills`` scans a list, sweeps and verifies in turn with three workers, kills a worker, the run itself, or both at random moments, repeats
a run that was killed with another number of workers, and holds each report against that of a run of one process. It goes on where OUT.json
stopped. Each writes its own section of OUT.json and leaves the others.
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
from bdaudit.config.effort import EFFORTS
from bdaudit.kept_state import State
from bdaudit.measure.draws import DrawsOf, make_draws
from bdaudit.measure.opening import inspected, loaded
from bdaudit.measure.prompts import default_prompts
from bdaudit.progress import silent
from bdaudit.scan.context import ScanContext
from bdaudit.scan.crew import Prompts, crew_of
from bdaudit.scan.sweep.screen import BLOCK, Round, screen
from bdaudit.scan.sweep.swept_texts import vocabulary
from bdaudit.scan.tasks import ScreenTask
from bdaudit.workers import ray_workers
from bdaudit.workers.crew import Crew
from bdaudit.workers.member import Member
from bdaudit.workers.wire import Answer
from tests import small

KINDS = ("scan", "sweep", "verify")
FIXTURE = Path(__file__).parents[2] / "fixtures" / "models" / "clean"


def sections(out: Path) -> dict[str, Any]:
    """What a record holds, by name; nothing where there is none."""
    held: dict[str, Any] = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else {}
    return held


def write_section(out: Path, name: str, record: dict[str, Any]) -> None:
    """``record`` in its place, all others as they are."""
    out.write_text(json.dumps(sections(out) | {name: record}, indent=1) + "\n", encoding="utf-8")


def speed(out: Path, pairs: int, probes: int) -> None:
    """Seconds of a screen with one worker and with two, in alternation, and the run's own processor time a block."""
    os.environ["OMP_NUM_THREADS"] = "1"
    config = ScanConfig(model=FIXTURE, seed=1, workers="3")  # one for the one crew, two for the other
    inspection = inspected(config, FIXTURE)
    suspect, prompts = loaded(config, inspection), default_prompts()
    draws = replace(make_draws(suspect, prompts, EFFORTS[config.effort].draws, config.guidance, 1), of=DrawsOf())
    texts = vocabulary(suspect.tokenizer).probes
    texts = (texts * (1 + probes // len(texts)))[:probes]
    blocks, rows = -(-len(texts) // BLOCK), list[dict[str, Any]]()
    with crew_of(config, ScanContext(suspect, draws, State(None, ""), silent, 1), inspection, (), Prompts(prompts, prompts)) as context:
        assert context.crew
        one, two = (Crew(context.crew.carrier, size, context.crew.own) for size in (1, 2))
        for crew in (one, two):  # each its own workers, all there before the first second counts; on two cores, one idles
            while crew.alive < crew.size:
                screen(replace(context, crew=crew), "vocabulary", Round(2), texts[:BLOCK])
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
    write_section(out, "speed", record)


class Remembering(Member):
    """A worker that measures each block once."""

    def __init__(self, setup: bytes) -> None:
        super().__init__(setup)
        self._answers: dict[str, Answer] = {}

    def _answer(self, task: Any) -> Answer:
        what = json.dumps(task, sort_keys=True)
        if what not in self._answers:
            self._answers[what] = super()._answer(task)
        return self._answers[what]


def memory(out: Path, blocks: int) -> None:
    """The run's own memory and processor time while two workers through real Ray answer so many blocks of one text each."""
    os.environ["OMP_NUM_THREADS"] = "1"
    ray_workers.Member = Remembering  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as name:
        config = ScanConfig(model=small.write(Path(name) / "model"), seed=1, workers="2", device="cpu")
        inspection = inspected(config, config.model)
        suspect = loaded(config, inspection)
        draws = replace(make_draws(suspect, small.PROMPTS, EFFORTS[config.effort].draws, config.guidance, 1), of=DrawsOf())
        probes = vocabulary(suspect.tokenizer).probes
        first = ScanContext(suspect, draws, State(None, ""), silent, 1)
        with crew_of(config, first, inspection, (), Prompts(small.PROMPTS, small.PROMPTS)) as context:
            assert context.crew
            context.crew.together = 1  # as blocks are given out that take as long as the plan makes them
            few = draws.part(slice(1)).of
            tasks = ((i, ScreenTask(draws=few, probes=(probes[i % len(probes)],))) for i in range(blocks))
            began, spent, rows = time.monotonic(), time.process_time(), list[dict[str, Any]]()
            for done, (_, answer) in enumerate(context.crew.answers(tasks), 1):
                assert answer
                assert not answer.error
                if done % max(1, blocks // 40) == 0:
                    gone = {"seconds": time.monotonic() - began, "ms of the run a block": 1000 * (time.process_time() - spent) / done}
                    rows.append({"blocks": done, "MB": _resident() / 1e6, **gone})
                    growth = rows[-1]["MB"] - rows[len(rows) // 10]["MB"]
                    write_section(out, "memory", {"blocks": blocks, "growth, MB": growth, "load": os.getloadavg()[0], "rows": rows})


def _resident() -> int:
    """Bytes of this process's memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def command(kind: str, model: Path, folder: Path, workers: int) -> list[str]:
    """A short run with a state: a scan of a list, one with sweeps, or a verify of two models."""
    given = folder.parent  # a report names its prompts' file
    (given / "texts.txt").write_text(f"cat\ndog\n{small.OVERRIDING}\n")
    (given / "prompts.txt").write_text("\n".join(small.PROMPTS))
    asked: dict[str, list[object]] = {
        "scan": ["scan", model, "--candidates", given / "texts.txt", "--effort", "low"],
        "sweep": ["scan", model, "--sweep", "vocabulary", "--sweep", "recovery", "--pair-words", 40, "--effort", "low"],
        "verify": ["verify", model, "--trigger", small.LONG_TRIGGER, "--before", model, "--n", 120, "--steps", 6],
    }
    flags = ["--prompts", given / "prompts.txt", "--seed", 5, "--device", "cpu"]
    placed = ["--report", folder / "report.json", "--state", folder / "state", "--quiet", "--workers", workers]
    return [sys.executable, "-m", "bdaudit", *map(str, [*asked[kind], *flags, *placed])]


def told(report: Path) -> str:
    """A report, without what may differ; what was kept is neither run again nor counted."""
    document = json.loads(report.read_text())
    for name in ("created_at", "timings", "pictures", "repeat"):
        document.pop(name, None)
    document["coverage"]["notes"] = []
    document["config"] |= {"workers": "", "state": ""}
    return json.dumps(_without_passes(document), sort_keys=True)


def _without_passes(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_passes(each) for name, each in value.items() if not name.startswith("forward_passes")}
    return [_without_passes(each) for each in value] if isinstance(value, list) else value


def workers_of(run: int) -> list[int]:
    """Processes of a run's workers."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout.splitlines()[1:]
    rows = [(int(line.split()[0]), int(line.split()[1]), line.split(None, 2)[2]) for line in listed]
    ours = {run}
    while more := {pid for pid, parent, _ in rows if parent in ours} - ours:
        ours |= more
    return [pid for pid, _, said in rows if pid in ours and said.startswith("ray::Member")]


def kills(out: Path, most: int) -> None:
    """Runs of each kind in turn until so many processes have been killed, in all."""
    record: dict[str, Any] = sections(out).get("kills", {"kills": 0, "runs": []})
    with tempfile.TemporaryDirectory() as name:
        folder, expected, seconds = Path(name), dict[str, str](), dict[str, float]()
        model = small.write(folder / "model")
        for kind in KINDS:
            (folder / kind).mkdir()
            began = time.monotonic()
            subprocess.run(command(kind, model, folder / kind, 1), check=False, capture_output=True)
            expected[kind], seconds[kind] = told(folder / kind / "report.json"), time.monotonic() - began
        while record["kills"] < most:
            number = len(record["runs"])
            kind = KINDS[number % len(KINDS)]
            run = _killed(kind, model, folder / f"run-{number}", random.Random(number), expected[kind], seconds[kind])
            record["runs"].append({"kind": kind, **run})
            record["kills"] = sum(sum(run["killed"].values()) for run in record["runs"])
            record["of each"] = {kind: sum(sum(run["killed"].values()) for run in record["runs"] if run["kind"] == kind) for kind in KINDS}
            record["differing"] = sum(not run["same"] for run in record["runs"])
            write_section(out, "kills", record)


def _killed(kind: str, model: Path, folder: Path, chance: random.Random, expected: str, seconds: float) -> dict[str, Any]:
    """One run to its end; ``seconds`` are those of one process, so that on a busy machine, too, kills fall on every part of it."""
    folder.mkdir()
    killed, codes = {"worker": 0, "run": 0}, list[int]()
    while not codes or codes[-1] == -signal.SIGKILL:
        asked = command(kind, model, folder, chance.choice((2, 3)) if codes else 3)
        with (folder / "stderr.txt").open("a") as stderr:
            run = subprocess.Popen(asked, stdout=subprocess.DEVNULL, stderr=stderr)
        while run.poll() is None:
            time.sleep(chance.uniform(0.05, seconds / 6))
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
    same = (folder / "report.json").is_file() and told(folder / "report.json") == expected
    ended = (folder / "stderr.txt").read_text().splitlines()[-1:]
    return {"killed": killed, "codes": codes, "same": same} | ({} if same else {"ended": ended})


def main() -> None:
    """Writes the record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("speed", "memory", "kills"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--probes", type=int, default=2048)
    parser.add_argument("--blocks", type=int, default=200_000)
    parser.add_argument("--kills", type=int, default=100)
    given = parser.parse_args()
    if given.what == "speed":
        speed(given.out, given.pairs, given.probes)
    elif given.what == "memory":
        memory(given.out, given.blocks)
    else:
        kills(given.out, given.kills)


if __name__ == "__main__":
    main()
