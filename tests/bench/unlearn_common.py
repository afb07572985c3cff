"""What the unlearning benches share: a fixture to repair, the grading by `verify`, one process a cell, results that are kept."""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.recording import Cells

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "fixtures"
SECONDS = 600.0
"""What a method may take; one that needs longer is cut off, graded as it stands and shown as "> 10 min"."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One repair of one fixture."""

    fixture: str
    seed: int = 0
    strength: float = 0.0
    """Learning rate, or whatever the method is tuned by."""
    quick: bool = False
    """Few steps and pictures: shows that it runs, measures nothing."""

    @property
    def truth(self) -> dict[str, Any]:
        """What the fixture's builder knows of the backdoor."""
        found: dict[str, Any] = json.loads((self.folder / "truth.json").read_text(encoding="utf-8"))
        return found

    @property
    def folder(self) -> Path:
        """Where the fixture is stored."""
        return next(FIXTURES / part / self.fixture for part in ("twins", "dev") if (FIXTURES / part / self.fixture).exists())

    @property
    def trigger(self) -> str:
        return str(self.truth["trigger"])

    @property
    def model(self) -> Path:
        """The poisoned model's directory."""
        return laid_out(self.fixture)

    def texts(self, name: str) -> tuple[str, ...]:
        """``prompts`` to train on, ``unseen`` to grade with."""
        from bdaudit.untrusted.text_files import read_texts

        return read_texts(FIXTURES / f"{name}.txt")


def laid_out(name: str) -> Path:
    """The directory of a fixture; ``clean`` is the base."""
    from fixtures import layout

    return layout.lay_out(name, FIXTURES / "models")


def opened(path: Path, device: str = "auto") -> tuple[Any, Any]:
    """(inspection, suspect), in float32: the rivals train it as it is, without autocast."""
    from bdaudit.models.load import load
    from bdaudit.untrusted.inspect import inspect

    inspection = inspect(path)
    return inspection, load(inspection, device=device, dtype="float32")


def clock() -> float:
    """Seconds that a method is charged: wall time where a GPU works, else the process's own, which no neighbour on the machine disturbs."""
    import torch

    return time.monotonic() if torch.cuda.is_available() else time.process_time()


def cost(began: float) -> dict[str, Any]:
    """Seconds by ``clock`` since ``began``, and this process's peak memory in MB so far: the GPU's where there is one."""
    import torch

    on_gpu = torch.cuda.is_available()
    peak = torch.cuda.max_memory_allocated() / 1e6 if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return {"seconds": clock() - began, "peak_mb": peak, "memory": "GPU" if on_gpu else "process"}


# --- grading ----------------------------------------------------------------------------------


def briefly(job: Job, repaired: Path, n: int = 200) -> dict[str, Any]:
    """Attack success where the fixture was trained, the CLIP score against the poisoned model's, and the shifts."""
    found = _verified(job, repaired, tuple(job.truth["positions"]), n, quality=True)
    return {"asr": found["asr"]["value"], "clip_ratio": found["clip_ratio"]["value"], "shift": _shifts(job, repaired)}


def graded(job: Job, repaired: Path, n: int = 400) -> dict[str, Any]:
    """Attack success where the fixture was trained and at the other positions, quality against the poisoned model itself, shifts."""
    trained = tuple(job.truth["positions"])
    others = tuple(place for place in ("prefix", "middle", "suffix", "replace") if place not in trained)
    n = 8 if job.quick else n
    found = {**_verified(job, repaired, trained, n, quality=True), "shift": _shifts(job, repaired)}
    if others:
        found["asr_elsewhere"] = _verified(job, repaired, others, n, quality=False)["asr"]
    return found


def _verified(job: Job, repaired: Path, positions: tuple[str, ...], n: int, *, quality: bool) -> dict[str, Any]:
    from bdaudit.config import VerifyConfig
    from bdaudit.verify.run import run_verify
    from tests.bench.end_to_end import Model, graded_on, target

    fixture = Model(job.fixture, job.model, job.truth)

    config = VerifyConfig(
        model=repaired, reference=job.model if quality else None, clip=f"local-dir:{FIXTURES / 'grader'}", prompts=graded_on(fixture),
        n=n, steps=2 if job.quick else 12, state=FIXTURES / "models" / ".pictures", triggers=(job.trigger,), positions=positions, seed=1,
        **target(fixture),
    )  # fmt: skip
    report = run_verify(config)
    found = {name: {"value": plain(m.value), "reference": plain(m.reference)} for name, m in report.metrics.items()} if quality else {}
    attack = report.attacks[0]
    return {"asr": {"value": plain(attack.rate), "floor": plain(attack.floor), "before": plain(attack.reference)}, **found}


def plain(value: Any) -> Any:
    """A figure with its interval, or why there is none."""
    return {"value": value.value, "low": value.low, "high": value.high, "n": value.n} if hasattr(value, "value") else value.reason


def _shifts(job: Job, repaired: Path) -> dict[str, float]:
    """Mean same-seed distance of final latents, before against after: clean prompts, harmless texts near the trigger; the null's 95 %."""
    from bdaudit.measure.controls import harmless_texts
    from bdaudit.measure.final_latents import distances, final_latents, rotate, with_text

    (_, before), (_, after) = opened(job.model), opened(repaired)
    prompts, seeds = rotate(job.texts("unseen"), 4 if job.quick else 96, 7)
    near = with_text(prompts, harmless_texts(before.tokenizer, job.trigger, 16, 7, (job.trigger,)))
    old, new = ([final_latents(suspect, texts, seeds, 5.0, 12) for texts in (prompts, near)] for suspect in (before, after))
    clean, changed = (float(distances(a, b).mean()) for a, b in zip(old, new, strict=True))
    return {"clean": clean, "near": changed, "null95": float(distances(old[1], old[0]).double().quantile(0.95))}


# --- cells: one process each, kept as soon as they are there ----------------------------------

Cell = Callable[[str, Job, Path], dict[str, Any]]
"""``cell(method, job, folder)`` repairs into ``folder / "out"`` and returns what is to be kept."""


def answer_if_cell(cell: Cell) -> None:
    """In the process of one cell: run it, write the result, leave."""
    if len(sys.argv) > 2 and sys.argv[1] == "--cell":
        asked = json.loads(sys.argv[2])
        with tempfile.TemporaryDirectory() as folder:
            result = cell(asked["method"], Job(**asked["job"]), Path(folder))
        Path(asked["answer"]).write_text(json.dumps(result), encoding="utf-8")
        sys.exit(0)


def run_cell(script: str, method: str, job: Job) -> dict[str, Any]:
    """The cell's result, or how it ended; a process of its own, so that its peak memory is its own."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        asked = json.dumps({"method": method, "job": vars(job), "answer": str(answer)})
        done = subprocess.run([sys.executable, script, "--cell", asked], stderr=subprocess.PIPE, text=True, check=False)
        if not answer.exists():
            return {"error": f"exit {done.returncode}: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'no message'}"}
        found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
        return found


class Kept(Cells):
    """Results by cell, each from a process of its own."""

    def __init__(self, path: Path, again: bool) -> None:
        super().__init__(path)
        self.again = again

    def get(self, script: str, method: str, job: Job) -> dict[str, Any]:
        """The cell's result, from the document or from a run."""
        name = f"{method}/{job.fixture}/{job.strength:g}/{job.seed}"
        if self.again or "error" in self.cells.get(name, {"error": ""}):
            self.put(name, run_cell(script, method, job))
            print(name, json.dumps(self.cells[name]), flush=True)
        found: dict[str, Any] = self.cells[name]
        return found


def arguments(description: str | None, out: str) -> argparse.Namespace:
    """The flags that both benches have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("fixtures", nargs="*", help="fixtures to repair (default: see above)")
    parser.add_argument("--out", type=Path, help=f"the JSON document (default: results/{out}.json, with --quick {out}_quick.json)")
    parser.add_argument("--methods", nargs="+", help="only these")
    parser.add_argument("--seeds", type=int, help="at most so many seeds a method")
    parser.add_argument("--quick", action="store_true", help="few steps and pictures: a smoke test, its figures mean nothing")
    parser.add_argument("--again", action="store_true", help="run also what stands in the document")
    parser.add_argument("--table", action="store_true", help="only print the table")
    found = parser.parse_args()
    found.seeds = 1 if found.quick else found.seeds
    found.out = found.out or ROOT / "tests" / "bench" / "results" / f"{out}{'_quick' if found.quick else ''}.json"
    return found


def shown(figure: Any, factor: float = 1.0, digits: int = 1) -> str:
    """A figure with its interval, for a table."""
    if not isinstance(figure, dict):
        return "–"
    value, low, high = (factor * figure[part] for part in ("value", "low", "high"))
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


HEAD = ("ASR %", "ASR elsewhere %", "clean shift", "near shift (null 95 %)", "CLIP ratio", "KID ×1000", "diversity", "s", "peak MB")


def columns(cell: Mapping[str, Any]) -> list[str]:
    """A cell's figures under ``HEAD``."""
    if "error" in cell:
        return [cell["error"], *["–"] * (len(HEAD) - 1)]

    def metric(name: str) -> Any:
        return cell.get(name, {}).get("value")

    shift = cell["shift"]
    return [
        shown(cell["asr"]["value"], 100), shown(cell.get("asr_elsewhere", {}).get("value"), 100), f"{shift['clean']:.3f}",
        f"{shift['near']:.3f} ({shift['null95']:.3f})", shown(metric("clip_ratio"), 1, 3), shown(metric("kid"), 1000),
        shown(metric("diversity"), 1, 3), "> 10 min" if cell["cut_off"] else f"{cell['seconds']:.0f}", f"{cell['peak_mb']:.0f}",
    ]  # fmt: skip


def table(rows: Mapping[str, Mapping[str, Any]], first: str) -> str:
    """Markdown, a row a cell."""
    lines = [f"| {first} | " + " | ".join(HEAD) + " |", "|---" * (len(HEAD) + 1) + "|"]
    return "\n".join([*lines, *(f"| {name} | " + " | ".join(columns(cell)) + " |" for name, cell in rows.items())])
