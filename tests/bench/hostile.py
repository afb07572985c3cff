"""The hostile corpus in figures, as JSON: ``python tests/bench/hostile.py [PATH]``; ``--table PATH`` prints SECURITY.md's rows from it.

Each model directory and each cache is inspected by bdaudit, then opened by plain ``DiffusionPipeline.from_pretrained`` in a throw-away
subprocess. A canary that exists afterwards means that code of the directory's own was run. ``--doors [PATH]`` does the same, by bdaudit
alone, with what lies at the other doors: patches, adapters, pictures, graders, reports, policies, state; ``--readers [PATH]`` with the
tokenizers and chat templates of diffusion transformers, which are opened as a scan opens them. What plain diffusers did is kept in
PATH.plain on the way, so that a run that was stopped goes on.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from bdaudit.errors import BdauditError, ExitCode
from bdaudit.untrusted.inspect import inspect
from bdaudit.untrusted.text_files import read_texts
from tests import hostile_doors as doors
from tests import hostile_folders, hostile_weights
from tests.bench.recording import Cells, record
from tests.untrusted import hostile_cache, hostile_readers
from tests.untrusted.hostile import CASES, TEXTS, Case
from tests.untrusted.hostile_cache import CacheCase
from tests.untrusted.tiny import write_model

DIRECTORIES: tuple[Case | CacheCase, ...] = (*CASES, *hostile_cache.CASES)
DOORS = (*doors.CASES, *hostile_folders.CASES, *hostile_weights.CASES)

PLAIN_SECONDS, PLAIN_WAITING = 15, 60
"""Seconds of computing, and of waiting, after which plain diffusers hangs."""
PLAIN_BYTES = 12 << 30


@contextmanager
def scene(case: Case | CacheCase | None = None) -> Iterator[tuple[Path, Path]]:
    """A valid model, or a snapshot of it, made hostile; and where its canary would appear, in a folder that is removed afterwards."""
    folder, here = Path(tempfile.mkdtemp(prefix="hostile-")), Path.cwd()
    canary = folder / "canary"
    try:
        if isinstance(case, CacheCase):
            model, outside = hostile_cache.cache(folder)
            case.edit(model, outside)
            os.environ["HF_HUB_CACHE"] = str(folder / "hub")
            (folder / "here").mkdir()
            os.chdir(folder / "here")
        else:
            model = write_model(folder / "model")
            if case:
                case.edit(model, canary)
        yield model, canary
    finally:
        os.chdir(here)
        shutil.rmtree(folder, ignore_errors=True)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def exit_code(call: Callable[[], object]) -> int:
    """The exit code that ``call`` would end in; -1 for an error that bdaudit does not declare."""
    try:
        call()
    except BdauditError as error:
        return int(error.code)
    except Exception:
        return -1
    return 0


def inspected(case: Case | CacheCase) -> dict[str, Any]:
    with scene(case) as (model, canary):
        before, start = peak_mb(), time.process_time()
        code = exit_code(lambda: case.open(model) if isinstance(case, CacheCase) else inspect(model, allow_pickle=case.allow_pickle))
        seconds = time.process_time() - start
        return {"code": code, "right": code == case.code, "executed": canary.exists(), "seconds": seconds, "grew_mb": peak_mb() - before}


def read(write: Callable[[Path], object]) -> dict[str, Any]:
    with scene() as (model, canary):
        write(model.parent / "tokens.txt")
        before, start = peak_mb(), time.process_time()
        code = exit_code(lambda: read_texts(model.parent / "tokens.txt"))
        seconds = time.process_time() - start
        return {"code": code, "right": code == 2, "executed": canary.exists(), "seconds": seconds, "grew_mb": peak_mb() - before}


def at_door(case: doors.Case) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="hostile-"))
    try:
        (folder / "in").mkdir()
        before, start = peak_mb(), time.process_time()
        code = exit_code(lambda: case.run(folder / "in", folder / "canary"))
        seconds = time.process_time() - start
        executed = (folder / "canary").exists()
        return {"code": code, "right": code == case.code, "executed": executed, "seconds": seconds, "grew_mb": peak_mb() - before}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def all_doors() -> dict[str, Any]:
    """By kind, and those that did not end rightly."""
    doors.suspect(), doors.load_clip()  # the libraries are loaded once
    return by_kind({case: at_door(case) for case in DOORS})


def all_readers() -> dict[str, Any]:
    """The same of the readers."""
    with tempfile.TemporaryDirectory(prefix="hostile-") as name:
        origins = {family: hostile_readers.write(family, Path(name) / family) for family in {c.family for c in hostile_readers.CASES}}
        for family, origin in origins.items():  # the libraries are loaded once
            hostile_readers.ReaderCase("", "", ExitCode.PASS, family, lambda model, canary: None).open(origin)
        return by_kind({case: at_reader(case, origins[case.family]) for case in hostile_readers.CASES})


def at_reader(case: hostile_readers.ReaderCase, origin: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="hostile-") as name:
        model, canary = shutil.copytree(origin, Path(name) / "model"), Path(name) / "canary"
        case.edit(model, canary)
        before, start = peak_mb(), time.process_time()
        code = exit_code(lambda: case.open(model))
        seconds = time.process_time() - start
        return {"code": code, "right": code == case.code, "executed": canary.exists(), "seconds": seconds, "grew_mb": peak_mb() - before}


def by_kind(results: Mapping[Any, dict[str, Any]]) -> dict[str, Any]:
    """A record of what became of cases that have a kind and a name."""
    kinds = dict.fromkeys(case.kind for case in results)
    return {
        "all": summary(list(results.values())),
        "kinds": {kind: summary([r for case, r in results.items() if case.kind == kind]) for kind in kinds},
        "wrong": [f"{case.kind}: {case.name}" for case, r in results.items() if not r["right"] or r["executed"]],
        "cases": {f"{case.kind}: {case.name}": result for case, result in results.items()},
    }


def named(case: Case | CacheCase, model: Path) -> tuple[str, dict[str, Any]]:
    """What a user of diffusers would name, and how."""
    if not isinstance(case, CacheCase) or not case.asked:
        return str(model), {}
    name, _, revision = case.asked.partition("@")
    return name, {"cache_dir": os.environ["HF_HUB_CACHE"], "local_files_only": True} | ({"revision": revision} if revision else {})


def open_plainly(name: str, options: dict[str, Any]) -> None:
    """In a child process: load as a user of diffusers would, then leave with 0 (loaded) or 1 (error)."""
    from diffusers import DiffusionPipeline

    resource.setrlimit(resource.RLIMIT_AS, (PLAIN_BYTES, PLAIN_BYTES))
    used = int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]))
    resource.setrlimit(resource.RLIMIT_CPU, (used + PLAIN_SECONDS, used + PLAIN_SECONDS))
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    try:
        DiffusionPipeline.from_pretrained(name, **options)
    except BaseException:
        os._exit(1)
    os._exit(0)


def plain(case: Case | CacheCase) -> dict[str, Any]:
    """What diffusers itself does with the case: loaded, error, hung, killed; and whether the canary sang."""
    with scene(case) as (model, canary):
        start = time.perf_counter()
        child = os.fork()
        if child == 0:
            open_plainly(*named(case, model))
        while (done := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.perf_counter() - start < PLAIN_WAITING:
            time.sleep(0.02)
        if done == (0, 0):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(done[1])
        hung = done == (0, 0) or code in (-signal.SIGXCPU, -signal.SIGKILL)
        outcome = "hung" if hung else {0: "loaded", 1: "error"}.get(code, "killed")
        return {"outcome": outcome, "sang": canary.exists(), "seconds": time.perf_counter() - start}


def kept_plain(case: Case | CacheCase) -> dict[str, Any]:
    """The same, once for each case and record."""
    if len(sys.argv) < 2:
        return plain(case)
    kept, name = Cells(Path(f"{sys.argv[1]}.plain")), f"{case.kind}: {case.name}"
    if name not in kept.cells:
        kept.put(name, plain(case))
    found: dict[str, Any] = kept.cells[name]
    return found


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "tried": len(results),
        "ended rightly": sum(r["right"] for r in results),
        "executed": sum(r["executed"] for r in results),
        "seconds, slowest": round(max(r["seconds"] for r in results), 3),
        "peak memory above the baseline, MB": round(sum(r["grew_mb"] for r in results), 1),
    }


def name_of(case: Case | CacheCase) -> str:
    return f"{case.kind}: {case.name}"


def of_plain(outcomes: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "plain diffusers": {o: sum(r["outcome"] == o for r in outcomes) for o in ("loaded", "error", "hung", "killed")},
        "plain diffusers, canaries": sum(r["sang"] for r in outcomes),
    }


def by_bdaudit() -> dict[str, Any]:
    """What bdaudit does with every directory, cache and list, by kind."""
    for first in (CASES[0], hostile_cache.CASES[0]):
        inspected(first)
    baseline = peak_mb()
    results = {name_of(case): inspected(case) for case in DIRECTORIES}
    texts = [read(write) for write in TEXTS.values()]
    kinds = dict.fromkeys(case.kind for case in DIRECTORIES)
    return {
        "python": sys.version.split()[0],
        "directories": summary(list(results.values())),
        "texts": summary(texts),
        "peak of all, MB": round(peak_mb() - baseline, 1),
        "kinds": {kind: summary([r for name, r in results.items() if name.startswith(f"{kind}: ")]) for kind in kinds},
        "wrong": [name for name, result in results.items() if not result["right"] or result["executed"]],
        "cases": {name: {"bdaudit": result} for name, result in results.items()},
    }


def table(report: dict[str, Any]) -> str:
    """The rows of SECURITY.md's table; dashes where plain diffusers was not tried."""

    def plain_cells(row: dict[str, Any]) -> list[Any]:
        told = row.get("plain diffusers")
        return [" / ".join(str(told[o]) for o in ("loaded", "error", "hung")), row["plain diffusers, canaries"]] if told else ["–", "–"]

    rows = [[kind, *list(row.values())[:5], *plain_cells(row)] for kind, row in report["kinds"].items()]
    rows.append(["candidates and prompt files", *report["texts"].values(), "–", "–"])
    sums = [sum(row[i] for row in rows) for i in (1, 2, 3)]
    rows.append(["**all**", *sums, max(row[4] for row in rows), report["peak of all, MB"], *plain_cells(report)])
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)


def doors_table(report: dict[str, Any]) -> str:
    """The rows of its second table."""
    rows = [[kind, *row.values()] for kind, row in report["kinds"].items()]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in [*rows, ["**all**", *report["all"].values()]])


def main() -> None:
    if sys.argv[1:2] == ["--table"]:
        report = json.loads(Path(sys.argv[2]).read_text())
        print(table(report) if "texts" in report else doors_table(report))
        return
    alone = {"--doors": all_doors, "--readers": all_readers}.get("".join(sys.argv[1:2]))
    if alone:
        record(alone(), 2)
        return
    report = by_bdaudit()
    record(report, 1)  # before the longer part
    os.environ["HF_HUB_OFFLINE"] = "1"
    import diffusers
    import torch
    import transformers
    from diffusers import StableDiffusionPipeline

    torch.set_num_threads(1)
    with scene() as (model, _):
        StableDiffusionPipeline.from_pretrained(str(model))
    opened = {name_of(case): kept_plain(case) for case in DIRECTORIES}
    for name, outcome in opened.items():
        report["cases"][name]["plain"] = outcome
    for kind, row in report["kinds"].items():
        row |= of_plain([outcome for name, outcome in opened.items() if name.startswith(f"{kind}: ")])
    versions = {module.__name__: module.__version__ for module in (diffusers, transformers)}
    record({"versions": versions, **of_plain(list(opened.values())), **report}, 1)


if __name__ == "__main__":
    main()
