"""Runs that are killed at random moments, then run again by the same command: ``python tests/bench/kills.py [KILLS] [PATH]``.

After a kill, whatever is visible must be whole; after the second run, the report and what was written must be those of a run that
nothing disturbed, timings aside, whether the second run resumed or started over. A disk that fills up at a random moment, and has room
again for the second run, is one of the ways to be stopped; it needs the right to mount a tmpfs, and is left out elsewhere. Each run is
a forked child of one process that has imported everything, so that the moments fall into the work and not into imports. PATH is written
after each round, and a run that was stopped goes on behind the last of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from bdaudit.errors import ExitCode
from tests import small
from tests.bench.recording import stamp

VERBS = ("scan", "unlearn", "verify")
SIGNALS = ("SIGKILL", "SIGTERM", "SIGHUP", "SIGINT")
FULL_DISK = "full disk"
DISK = 256 << 20
"""Bytes of the disk that fills up."""
TIMES = frozenset(
    {"timings", "created_at", "seconds", "forward_passes", "forward_passes_per_candidate", "resumed_at", "pictures", "repeat"}
)
"""What a report says of the effort of its own run and not of the model: a run that resumes has less to do."""
SECONDS = 600
"""A run that takes longer hangs."""


@dataclass
class Scene:
    """One model that all runs share, and a folder that each round finds empty."""

    root: Path
    baseline: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        small.write(self.root / "model")
        (self.root / "prompts.txt").write_text("\n".join(small.PROMPTS) + "\n")
        (self.root / "tokens.txt").write_text(f"{small.LONG_TRIGGER}\ncf\n")

    @property
    def disk(self) -> Path:
        """Where all is written that a run writes; a small disk of its own where one could be mounted."""
        return self.root / "disk"

    @property
    def work(self) -> Path:
        return self.disk / "work"

    @property
    def filler(self) -> Path:
        return self.disk / "filler"

    def arguments(self, verb: str) -> list[str]:
        """A command line of ``verb`` that takes a second or two."""
        shared = [verb, self.root / "model", "--prompts", self.root / "prompts.txt", "--report", self.work / "report.json", "--quiet"]
        own: dict[str, list[Any]] = {
            "scan": ["--candidates", self.root / "tokens.txt", "--effort", "low", "--seed", 0],
            "unlearn": ["--trigger", small.LONG_TRIGGER, "--steps", 6, "--n-prompts", 2, "--keep-failed", "--out", self.work / "out"],
            "verify": ["--trigger", small.LONG_TRIGGER, "--n", 4, "--steps", 2, "--save-images", self.work / "images"],
        }
        return [str(part) for part in (*shared, *own[verb])]

    def clear(self) -> None:
        self.filler.unlink(missing_ok=True)
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)


def start(scene: Scene, verb: str, most: int = resource.RLIM_INFINITY) -> int:
    """The process id of a child that runs ``verb``, can write no file longer than ``most`` bytes, and leaves with its exit code."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        with open(scene.root / "log", "a", encoding="utf-8") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            sys.stdout = sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), encoding="utf-8", write_through=True)
            sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr  # type: ignore[misc]
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # what runs under nohup has it ignored, and would never be hung up on
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
            sys.argv = ["bdaudit", *scene.arguments(verb)]
            from bdaudit import cli

            code = cli.main()
    finally:
        os._exit(code)


def computed(child: int) -> float:
    """Seconds of computing that a running child has had; moments are drawn in these, so that a busy machine does not shift them."""
    with contextlib.suppress(OSError, IndexError):
        fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def finish(child: int, seconds: float, computing: float = math.inf) -> int | None:
    """The child's exit code (minus its signal where one ended it), or None where it still runs after ``seconds`` or so much computing."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and computed(child) < computing:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    return None


def stop(scene: Scene, child: int, kind: str) -> int:
    """The exit code after a signal, or on a disk that has no byte left."""
    if kind == FULL_DISK:
        with contextlib.suppress(OSError), scene.filler.open("wb", buffering=0) as filler:
            while filler.write(bytes(4096)):
                pass
    else:
        os.kill(child, signal.Signals[kind])
    code = finish(child, SECONDS)
    if code is None:
        os.kill(child, signal.SIGKILL)
        raise RuntimeError(f"a run did not end within {SECONDS} s of {kind}")
    return code


def stopped(kind: str) -> tuple[int, ...]:
    """Exit codes of a run that was stopped before its end; a full disk leaves a finding a finding, and may come after the last byte."""
    if kind == FULL_DISK:
        return (ExitCode.ERROR, ExitCode.FINDING)
    return (-signal.SIGKILL,) if kind == "SIGKILL" else (ExitCode.INTERRUPTED,)


def whole(scene: Scene, verb: str) -> list[str]:
    """What is visible and not whole; empty where all is in order. Hidden names and state directories are nobody's result."""
    wrong = []
    report = scene.work / "report.json"
    if report.exists():
        try:
            json.loads(report.read_text())
        except ValueError:
            wrong.append("the report is not whole")
    for path in scene.work.glob("images/*.png"):
        wrong += [] if is_picture(path) else [f"{path.name} is not whole"]
    out = scene.work / "out"
    if out.exists() and any(out.iterdir()):
        expected = scene.baseline[verb]["files"] if verb in scene.baseline else {}
        missing = {name for name in expected if name.startswith("out/")} - set(files(scene.work))
        wrong += [f"out lacks {name}" for name in sorted(missing)]
    return wrong


def is_picture(path: Path) -> bool:
    from PIL import Image

    with contextlib.suppress(OSError, SyntaxError), Image.open(path) as picture:
        picture.load()
        return True
    return False


def files(folder: Path) -> dict[str, str]:
    """Relative path → SHA-256 of what a user is given: no reports, whose timings differ, no state, no hidden names."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        parts = path.relative_to(folder).parts
        if path.suffix != ".json" and not any(part.startswith(".") or part.endswith(".state") for part in parts):
            found["/".join(parts)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def timeless(value: Any) -> Any:
    """A report without its timings; files that hold timings are compared by name alone."""
    if isinstance(value, dict):
        times = str(value.get("path", "")).endswith("bdaudit.json")
        return {key: timeless(inner) for key, inner in value.items() if key not in TIMES and not (times and key in ("sha256", "bytes"))}
    return [timeless(inner) for inner in value] if isinstance(value, list) else value


def result(scene: Scene, code: int) -> dict[str, Any]:
    """Everything that two runs of one command must agree on."""
    report = json.loads((scene.work / "report.json").read_text())
    return {"code": code, "report": timeless(report), "files": files(scene.work)}


def spent() -> float:
    """Seconds of computing of all children that have ended."""
    return sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])


def undisturbed(scene: Scene, verb: str) -> None:
    scene.clear()
    started = spent()
    code = finish(start(scene, verb), SECONDS)
    if code not in (0, 1, 4):
        raise RuntimeError(f"{verb} ended in {code} before anything was killed: {(scene.root / 'log').read_text()[-2000:]}")
    scene.baseline[verb], scene.seconds[verb] = result(scene, code), spent() - started


def killed(scene: Scene, verb: str, kind: str, share: float) -> dict[str, Any]:
    """One round: a run that is stopped after ``share`` of its computing, a look at what is there, the same command again."""
    first, share = None, 2 * share
    while first not in stopped(kind):  # one that was done before its moment came is no kill: half as late
        scene.clear()
        share /= 2
        child = start(scene, verb)
        first = finish(child, SECONDS, share * scene.seconds[verb])
        first = stop(scene, child, kind) if first is None else first
    scene.filler.unlink(missing_ok=True)
    partial = whole(scene, verb)
    state = any(path.name.endswith(".state") for path in scene.work.iterdir())
    there = (scene.work / "out").is_dir()
    second = finish(start(scene, verb), SECONDS)
    same, differs = False, ""
    if second == 2 and there:  # the directory came whole before the kill; a run never writes over one
        same = files(scene.work) == scene.baseline[verb]["files"]
    elif second is not None and second >= 0 and (scene.work / "report.json").exists():
        again = result(scene, second)
        same, differs = again == scene.baseline[verb], difference(again, scene.baseline[verb])
    return {
        "verb": verb, "signal": kind, "share": round(share, 3), "first": first, "second": second, "partial": partial,
        "state was kept": state, "target was whole": there, "same": same, "differs": differs,
    }  # fmt: skip


def difference(one: Any, other: Any, where: str = "") -> str:
    """The first place where two results differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        return next((said for key in sorted({*one, *other}) if (said := difference(one.get(key), other.get(key), f"{where}.{key}"))), "")
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return next((said for i, pair in enumerate(zip(one, other, strict=True)) if (said := difference(*pair, f"{where}[{i}]"))), "")
    return "" if one == other else f"{where}: {str(one)[:80]} against {str(other)[:80]}"


def prepare() -> None:
    """Import once what every child needs, and leave torch without threads that a fork would lose."""
    import open_clip  # noqa: F401
    import scipy.stats  # noqa: F401
    import torch
    import torchmetrics  # noqa: F401
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel  # noqa: F401
    from transformers import CLIPTextModel, CLIPTokenizer  # noqa: F401

    import bdaudit.scan.run
    import bdaudit.unlearn.run
    import bdaudit.verify.run  # noqa: F401

    torch.set_num_threads(1)


def rounds(scene: Scene, kills: int, seed: int, kinds: Sequence[str], done: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """All rounds so far, after each; those that were ``done`` before come first."""
    draw = random.Random(seed)
    plan = [(VERBS[i % 3], kinds[i // 3 % len(kinds)], draw.random()) for i in range(kills)]
    for verb in dict.fromkeys(verb for verb, *_ in plan[len(done) :]):
        undisturbed(scene, verb)
    yield done
    for each in plan[len(done) :]:
        done = [*done, killed(scene, *each)]
        print(f"{len(done)}/{kills} {done[-1]}", file=sys.stderr, flush=True)
        yield done


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A disk of ``DISK`` bytes at ``folder``; says whether it could be mounted."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)], capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def report(scene: Scene, done: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "kills": len(done),
        "of which in mid-run": sum(r["first"] in stopped(r["signal"]) for r in done),
        "by verb and signal": dict(Counter(f"{r['verb']}, {r['signal']}" for r in done)),
        "partial outputs visible": sum(bool(r["partial"]) for r in done),
        "same result afterwards": sum(r["same"] for r in done),
        "state kept": sum(r["state was kept"] for r in done),
        "seconds of computing, undisturbed": {verb: round(seconds, 2) for verb, seconds in scene.seconds.items()},
        "rounds": done,
    }


def main() -> None:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 120
    path = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    done = json.loads(path.read_text(encoding="utf-8"))["rounds"] if path and path.exists() else []
    prepare()
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        scene = Scene(Path(folder))
        with small_disk(scene.disk) as mounted:
            for so_far in rounds(scene, kills, 0, (*SIGNALS, FULL_DISK) if mounted else SIGNALS, done):
                done = so_far
                if path:
                    path.write_text(json.dumps({**stamp(), **report(scene, done)}, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({**stamp(), **report(scene, done)}, indent=1))


if __name__ == "__main__":
    main()
