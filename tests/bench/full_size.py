"""What Stable Diffusion 1.5 costs at its real size, with random weights: ``python tests/bench/full_size.py WORK [PATH [PART …]]``.

With parts named, only these are measured anew, and the others stand as they are in PATH. Writes the pipeline into WORK, unless it is
there, and loads it as every command does. A CUDA device runs what a default run does, on a sample. The CPU scans at 64×64 latents, on a
shortened trajectory and few texts, and trains at 16×16 on a quarter of a step's latents: a smoke test and a basis to project from. A
real scan of the whole vocabulary, on tiny weights with the same tokenizer, counts the passes that a sweep takes. Each part has a
process of its own, so that its peak memory is its own. A projection is a number of passes times the median of a measured second a pass.
On the CPU seconds are the process's own on one thread, as a free core would take them.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from bdaudit.config import RepairConfig, ScanConfig  # noqa: E402
from bdaudit.config.effort import EFFORTS  # noqa: E402
from bdaudit.measure import draws, final_latents  # noqa: E402
from bdaudit.measure import draws as drawing  # noqa: E402
from bdaudit.measure.controls import WORDS, harmless_texts  # noqa: E402
from bdaudit.measure.insertion import POSITIONS  # noqa: E402
from bdaudit.measure.paths import make_paths, path_effects  # noqa: E402
from bdaudit.measure.prompts import default_prompts  # noqa: E402
from bdaudit.measure.text_effects import text_effects  # noqa: E402
from bdaudit.models.load import load  # noqa: E402
from bdaudit.models.suspect import Suspect  # noqa: E402
from bdaudit.records import Calibration  # noqa: E402
from bdaudit.scan.run import run_scan  # noqa: E402
from bdaudit.scan.sweep.screen import screened  # noqa: E402
from bdaudit.scan.sweep.single_texts import ROUNDS  # noqa: E402
from bdaudit.scan.sweep.swept_texts import vocabulary  # noqa: E402
from bdaudit.unlearn.loop import Course  # noqa: E402
from bdaudit.unlearn.repair import check, closed_form, train_denoiser, trajectories  # noqa: E402
from bdaudit.unlearn.repair.prompt_pairs import neighbour_pairs, triggered_pairs  # noqa: E402
from bdaudit.unlearn.repair.run import CHECK_EVERY  # noqa: E402
from bdaudit.unlearn.triggers import DRAWS, N_NULL  # noqa: E402
from bdaudit.unlearn.weights import Patch  # noqa: E402
from bdaudit.untrusted.inspect import inspect  # noqa: E402
from tests.bench.full_size_model import PARAMETERS, write_model, write_small  # noqa: E402
from tests.bench.recording import record, rounded  # noqa: E402
from tests.bench.unlearn_common import Job, clock  # noqa: E402
from tests.bench.unlearn_rivals import Work, released  # noqa: E402

TRIGGER = "mignneko"
SIDE = 64
"""Of the latents of 512×512 pictures."""


@dataclass(frozen=True)
class Size:
    """How much of the work is done."""

    draws: int
    trajectory: int
    """Steps of the trajectories that draws come from."""
    full: tuple[int, int]
    """Batches of texts that are measured on all draws, and texts a batch."""
    paths: tuple[int, int]
    """Paths that a batch of texts is followed along, and their steps."""
    screen: tuple[int, int]
    """Blocks that are screened, and texts a block."""
    side: int
    """Of the latents that are trained on."""
    rows: dict[str, Any]
    """A step's latents by kind."""
    train_prompts: int
    steps: int
    batch: int


CUDA = Size(16, 8, (5, 16), (4, 8), (32, 64), SIDE, {"TRIGGERED": 16, "KEPT": 24, "EMPTY": 8}, 16, 20, 64)
CPU = Size(2, 1, (3, 1), (1, 1), (3, 1), 16, {"TRIGGERED": 4, "KEPT": 6, "EMPTY": 2}, 2, 3, 8)


def size() -> Size:
    """What this machine is given to do."""
    return CUDA if torch.cuda.is_available() else CPU


# --- measuring --------------------------------------------------------------------------------


def spread(values: list[float]) -> dict[str, float]:
    """Median and range over ``n`` repeats."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values), "n": len(values)}


def now() -> float:
    """Seconds: on a GPU the clock's, when all that was asked is done; on the CPU this one thread's own, which others' work leaves alone."""
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def a_pass(suspect: Suspect, act: Callable[[], Any], n: int) -> dict[str, Any]:
    """Seconds a forward pass of ``n`` calls of ``act``, and the passes of a call."""
    seconds, passes = [], 0
    for _ in range(n):
        began, before = now(), suspect.forward_passes
        act()
        passes = suspect.forward_passes - before
        seconds.append((now() - began) / passes)
    return {"seconds a pass": spread(seconds), "passes a repeat": passes}


def peak_gb(*, reset: bool = False) -> float:
    """The most memory so far in GB: the GPU's where there is one, else this process's; ``reset`` begins anew from what is held now."""
    if torch.cuda.is_available():
        most = torch.cuda.max_memory_allocated() / 1e9
        if reset:
            torch.cuda.reset_peak_memory_stats()
        return most
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    if reset:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) * 1024 / 1e9


def opened(model: Path, dtype: str = "auto") -> tuple[Suspect, dict[str, Any]]:
    """The suspect, and what it took."""
    libraries, began = peak_gb(), now()
    inspection = inspect(model)
    inspected = now()
    suspect = load(inspection, dtype=dtype, batch_size=size().batch)
    spent = {"inspect seconds": inspected - began, "load seconds": now() - inspected, "peak GB": peak_gb(reset=True)}
    return suspect, {"libraries GB": libraries, **spent, "held GB": peak_gb(), "dtype": str(suspect.dtype).removeprefix("torch.")}


# --- scan -------------------------------------------------------------------------------------


def sweep(model: Path) -> dict[str, Any]:
    """What a vocabulary sweep counts: a real one, on tiny weights with the tokenizer of ``model``."""
    report = run_scan(ScanConfig(model=write_small(model.parent / "small", model), sweeps=("vocabulary",)))
    assert isinstance(report.calibration, Calibration)
    return {
        "sweeps": {s.name: {"texts": s.swept, "passes": s.forward_passes} for s in report.sweeps},
        "passes": report.calibration.forward_passes, "controls": report.calibration.n_controls,
        "survivors": sum(s.survivors for s in report.sweeps), "seconds on tiny weights": report.timings,
    }  # fmt: skip


def scan(model: Path) -> dict[str, Any]:
    """Single steps, paths and the screen, all at the model's own resolution."""
    suspect, opening = opened(model)
    config, asked = ScanConfig(model=model), size()
    with mock.patch.object(drawing, "STEPS", asked.trajectory):
        draws = drawing.make_draws(suspect, default_prompts(), asked.draws, config.guidance, 0)
    (repeats, together), (along, steps) = asked.full, asked.paths
    given = iter([WORDS[i : i + together] for i in range(0, 2 * repeats * together, together)])
    full = a_pass(suspect, lambda: text_effects(suspect, draws, next(given), attention=True), repeats)
    paths = make_paths(suspect, draws.part(slice(along)), steps, 0)
    follow = a_pass(suspect, lambda: path_effects(suspect, paths, next(given)), repeats)
    blocks, texts = asked.screen
    drawn = random.Random(0).sample(vocabulary(suspect.tokenizer).probes, blocks * texts)
    parts = iter([drawn[i : i + texts] for i in range(0, len(drawn), texts)])
    screen = a_pass(suspect, lambda: screened(suspect, ROUNDS[0].of(draws), next(parts)), blocks)
    plain = a_pass(suspect, lambda: suspect.predict_batched(draws.latents[:1], draws.timesteps[:1], draws.heard[:1]), 3)
    measured = {"full measurement": full, "paths": follow, "screen, first round": {**screen, "texts": len(drawn)}, "one latent": plain}
    return {"opening": opening, **measured, "peak GB": peak_gb()}


def scans(counted: Mapping[str, Any], scanned: Mapping[str, Any]) -> dict[str, Any]:
    """Default runs at 64×64: passes, and seconds by the rate of the same code."""
    spent, entries = EFFORTS[ScanConfig(model=Path()).effort], counted["sweeps"]["vocabulary"]
    screen, full = (scanned[name]["seconds a pass"]["median"] for name in ("screen, first round", "full measurement"))
    once, screening = ROUNDS[0].draws, sum(found["passes"] for found in counted["sweeps"].values())
    rows = {
        "a text in the screen's first round": (once, 0),
        "every entry in the screen's first round": (once * entries["texts"], 0),
        "all that a vocabulary sweep screens": (screening, 0),
        "a candidate's first draws": (0, spent.first),
        "a candidate on all draws": (0, spent.draws),
        "a candidate along paths": (0, spent.paths * spent.steps),
        "draws, controls and survivors": (0, counted["passes"] - screening),
        "scan --sweep vocabulary": (screening, counted["passes"] - screening),
    }
    return {name: {"passes": a + b, "seconds": a * screen + b * full} for name, (a, b) in rows.items()}


# --- unlearn ----------------------------------------------------------------------------------


def unlearn(model: Path) -> dict[str, Any]:
    """Steps of the default run's cross-attention stage, on latents of the model's own trajectories."""
    suspect, opening = opened(model)
    asked = size()
    suspect.denoiser.module.register_to_config(sample_size=asked.side)
    config = RepairConfig(model=model, triggers=(TRIGGER,), out=model.parent / "unused", steps=asked.steps)
    prompts = default_prompts()[: asked.train_prompts]
    pairs = triggered_pairs(prompts, config.triggers)
    near = neighbour_pairs(prompts, {TRIGGER: harmless_texts(suspect.tokenizer, TRIGGER, len(prompts), 0)}, 0)
    with mock.patch.object(trajectories, "STEPS", asked.trajectory):
        latents = trajectories.collect(suspect, pairs, guidance_scale=config.guidance, seed=0)
    material = train_denoiser.prepare(suspect, latents, pairs, near)
    rows = slice(asked.batch)
    plain = a_pass(suspect, lambda: suspect.predict_batched(latents.z[rows], latents.t[rows], material.clean[latents.pair[rows]]), 3)
    patch, times, before = Patch(suspect, "cross-attention"), [now()], suspect.forward_passes
    peak_gb(reset=True)
    with patch.training(), mock.patch.multiple(train_denoiser, **asked.rows):
        course = Course(steps=config.steps, seed=config.seed, tick=lambda *_: times.append(now()))
        curve = train_denoiser.train(suspect, patch, material, config.attention_weight, course)
    return {
        "opening": opening, "latents": f"{asked.side}×{asked.side}", "latents in a batch": plain, "step": _steps(times),
        "peak GB": peak_gb(), "passes a step": (suspect.forward_passes - before) // asked.steps, "latents a step": sum(asked.rows.values()),
        "batch": suspect.batch_size,
        "trained": {"tensors": len(patch.parameters), "parameters": _held(patch), "moved": len(patch.differences())},
        "loss": [point.total for point in curve],
    }  # fmt: skip


def solving(model: Path) -> dict[str, Any]:
    """The closed form of the default run on all its texts; the trigger's effect is left out, which is 72 passes a strength."""
    suspect, opening = opened(model)
    prompts = default_prompts()[: RepairConfig(model=model, triggers=(TRIGGER,), out=Path()).n_prompts]
    pairs = triggered_pairs(prompts, [TRIGGER])
    near = neighbour_pairs(prompts, {TRIGGER: harmless_texts(suspect.tokenizer, TRIGGER, N_NULL, 0)}, 0)
    patch, began = Patch(suspect, "closed-form"), now()
    strength = closed_form.solve(suspect, patch, pairs, near, lambda: 1.0)
    return {
        "opening": opening, "seconds": now() - began, "strength": strength, "texts": 2 * len(pairs) + len(near) + 1,
        "parameters": _held(patch), "tensors": len(patch.parameters), "peak GB": peak_gb(),
    }  # fmt: skip


def _steps(times: Sequence[float]) -> dict[str, float]:
    return spread([after - before for before, after in pairwise(times)])


def _held(patch: Patch) -> int:
    return sum(p.numel() for p in patch.parameters.values())


@dataclass(frozen=True)
class _Asked(Job):
    """A job without a fixture."""

    @property
    def trigger(self) -> str:
        return TRIGGER

    def texts(self, name: str) -> tuple[str, ...]:
        return default_prompts()


@dataclass
class _Timed(Work):
    times: list[float] = field(default_factory=list)

    def steps(self, n: int) -> Iterator[tuple[int, torch.Generator]]:
        for step in range(size().steps):
            self.times.append(now())
            yield step, torch.Generator().manual_seed(step)
        self.times.append(now())


def rival(model: Path) -> dict[str, Any]:
    """Steps of the released recipe: float32, batch 1, the whole UNet."""
    suspect, opening = opened(model, "float32")
    suspect.denoiser.module.register_to_config(sample_size=size().side)
    work = _Timed(suspect, _Asked(fixture="", strength=1e-6), clock())
    with mock.patch.object(torch.optim, "AdamW", torch.optim.AdamW if torch.cuda.is_available() else torch.optim.SGD):
        patch = released(work)
    peak, moments = peak_gb(), 0.0 if torch.cuda.is_available() else 8 * _held(patch) / 1e9
    z, t, states = suspect.noise([0]), torch.tensor([500], device=suspect.device), suspect.encode([TRIGGER])
    plain = a_pass(suspect, lambda: suspect.predict_batched(z, t, states), 3)
    return {
        "opening": opening, "latents": f"{size().side}×{size().side}", "one latent": plain, "step": _steps(work.times),
        "parameters": _held(patch), "peak GB": peak, "GB of AdamW's moments, not held here: plain SGD took its place": moments,
    }  # fmt: skip


def repairs(scanned: Mapping[str, Any], ours: Mapping[str, Any], theirs: Mapping[str, Any], solved: Mapping[str, Any]) -> dict[str, Any]:
    """The default runs at 64×64: steps by their latents and by how much more one pass costs there, all else by passes."""

    def at_full_size(step: float, plain: Mapping[str, Any]) -> float:
        return step if size().side == SIDE else step * _median(scanned["one latent"]) / _median(plain)

    rate, config = _median(scanned["full measurement"]), RepairConfig(model=Path(), triggers=(TRIGGER,), out=Path())
    step = at_full_size(ours["step"]["median"], ours["latents in a batch"]) * sum(CUDA.rows.values()) / ours["latents a step"]
    released_step = at_full_size(theirs["step"]["median"], theirs["one latent"])
    effect, pairs = DRAWS, len(default_prompts()) * len(POSITIONS)
    fewest, most = 3 * check.LOOKS[0] + 2 * check.LOOKS_UNMOVED[0], 5 * check.LOOKS[-1]
    passes = {
        "effects before": DRAWS * 2 * (draws.STEPS + 1) + (1 + N_NULL) * effect,
        "trajectories and units": pairs * trajectories.STEPS * 5 // 3 + 8 * CUDA.batch + 4 * 24,
        "effects on the way and after": effect * (config.steps // CHECK_EVERY - 1),
        "pictures of its own check": fewest * final_latents.STEPS,
    }
    told = {name: {"passes": n, "seconds": n * rate} for name, n in passes.items()} | {"steps": {"seconds": config.steps * step}}
    whole = {"seconds": sum(part["seconds"] for part in told.values())}
    quick = passes["effects before"] + (len(closed_form.STRENGTHS) + 1) * effect + passes["pictures of its own check"]
    more = (most - fewest) * final_latents.STEPS
    return {
        "default run, closed form": {"passes": quick, "seconds": quick * rate + solved["seconds"]},
        "pictures more, where a check needs all": {"passes": more, "seconds": more * rate},
        "seconds a step": step, "default run, cross-attention, no early stop": {**told, "whole": whole},
        "seconds a released step": released_step, "released recipe": {"steps": 10_000, "seconds": 10_000 * released_step},
    }  # fmt: skip


def _median(measured: Mapping[str, Any]) -> float:
    return float(measured["seconds a pass"]["median"])


# --- the parts, one process each --------------------------------------------------------------


def alone(part: Callable[[Path], dict[str, Any]], model: Path) -> dict[str, Any]:
    """A part in a process of its own."""
    torch.set_num_threads(1)
    began = time.monotonic()
    found = part(model)
    seconds = time.monotonic() - began
    return {**found, "seconds by the clock, in all": seconds, "share of a core": time.process_time() / seconds}


def main() -> None:
    """Command line."""
    model, load_before, asked = Path(sys.argv[1]) / "sd15", os.getloadavg()[0], sys.argv[3:] or list(PARTS)
    kept = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")) if sys.argv[3:] else {}
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        if not model.exists():
            pool.submit(write_model, model).result()
        found = {part: kept[part] for part in PARTS if part in kept and part not in asked}
        found |= {part: pool.submit(alone, PARTS[part], model).result() for part in asked}
    openings = [found[part].pop("opening") for part in asked if part != "sweep"]
    fresh = {name: spread([each[name] for each in openings]) for name in openings[0] if name != "dtype"} if openings else {}
    record(rounded(4, {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu, one thread",
        "load average, before": load_before, "load average, after": os.getloadavg()[0],
        "parameters": PARAMETERS, "opening": kept.get("opening", fresh), **found,
        "projected": scans(found["sweep"], found["scan"]) | repairs(*(found[part] for part in ("scan", "unlearn", "rival", "solving"))),
    }), 2)  # fmt: skip


PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "sweep": sweep, "scan": scan, "unlearn": unlearn, "solving": solving, "rival": rival,
}  # fmt: skip


if __name__ == "__main__":
    main()
