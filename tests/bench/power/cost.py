"""What a candidate costs: the full measurement, the screen, and T2IShield's FTT at its 50 steps. ``python -m tests.bench.power.cost``.

All on the clean fixture, in one run on one thread, with the same prompts and positions: the scan's default 8 prompts of
``prompts.txt``, each with the candidate at prefix, middle and suffix. A pass is one latent through the UNet, counted by a hook, so that a
guided step is two. What all candidates share (trajectories, controls) is counted apart. Writes ``results/cost.json``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from bdaudit.config import ScanConfig
from bdaudit.measure.insertion import POSITIONS, insert
from bdaudit.measure.probe import build_stage, gather
from bdaudit.measure.signals import measure_all
from bdaudit.models.load import load
from bdaudit.models.suspect import Suspect
from bdaudit.models.tokens import content_ids, content_mask, token_ids
from bdaudit.scan.sweep.screen import screened
from bdaudit.scan.sweep.single_texts import ROUNDS
from bdaudit.scan.sweep.swept_texts import Probe
from bdaudit.untrusted.inspect import inspect
from fixtures import layout
from fixtures.build import tokenizer
from tests.bench.power.bases import FIXTURES
from tests.bench.power.measuring import prompts
from tests.bench.power.rivals import averaged_maps, spread
from tests.bench.recording import stamp

RESULTS = Path(__file__).resolve().parents[1] / "results" / "cost.json"
FTT_STEPS = 50
FULL, SCREENED, FTT = 24, 256, 3
"""Candidates that each is timed on."""


def counted(suspect: Suspect, run: Callable[[], object]) -> tuple[int, float]:
    """UNet rows and seconds of ``run``."""
    rows = [0]

    def hook(module: object, given: tuple[torch.Tensor, ...], out: object) -> None:
        rows[0] += len(given[0])

    handle = suspect.denoiser.module.register_forward_hook(hook)
    began = time.perf_counter()
    try:
        run()
    finally:
        handle.remove()
    return rows[0], time.perf_counter() - began


def each(suspect: Suspect, run: Callable[[], object], n: int) -> dict[str, float]:
    """Passes and seconds a candidate, of ``n``."""
    rows, seconds = counted(suspect, run)
    return {"candidates": n, "passes": rows / n, "seconds": seconds / n}


def ftt(suspect: Suspect, given: Sequence[str], texts: Sequence[str]) -> None:
    """FTT as published: guided, 50 steps, a score for every prompt and position."""
    for text in texts:
        flat = [insert(prompt, text, position) for prompt in given for position in POSITIONS]
        words = content_mask(token_ids(suspect.tokenizer, flat), suspect.tokenizer.eos_token_id).float()
        spread(averaged_maps(suspect, flat, FTT_STEPS), words)


def measure() -> dict[str, Any]:
    """Everything, on one model."""
    model = layout.lay_out("clean", FIXTURES / "models")
    config = ScanConfig(model=model)
    suspect = load(inspect(model), device="cpu", dtype="float32", batch_size=config.batch_size)
    given, words = prompts()[: config.n_prompts], tokenizer.ordinary_words()
    stage = build_stage(suspect, given, config.timesteps, config.guidance_scale, config.seed)
    probes = [Probe(word, content_ids(suspect.tokenizer, word)) for word in words[:SCREENED]]
    list(gather(suspect, stage, words[:2]))  # warm
    found: dict[str, Any] = {
        "full": each(suspect, lambda: [measure_all(e, stage) for e in gather(suspect, stage, words[:FULL])], FULL),
        **{
            f"screen, round {number}": each(suspect, lambda step=step: _screen(suspect, step.stage(stage), probes, config), SCREENED)
            for number, step in enumerate(ROUNDS, start=1)
        },
        "ftt at 50 steps": each(suspect, lambda: ftt(suspect, given, words[:FTT]), FTT),
    }
    rows, seconds = counted(suspect, lambda: build_stage(suspect, given, config.timesteps, config.guidance_scale, config.seed))
    rival = found["ftt at 50 steps"]
    ratios = {
        name: {"passes": rival["passes"] / own["passes"], "seconds": rival["seconds"] / own["seconds"]}
        for name, own in found.items()
        if own is not rival
    }
    return {
        "prompts": len(given),
        "positions": POSITIONS,
        "each": found,
        "times cheaper": ratios,
        "shared": {"passes": rows, "seconds": seconds},
    }


def _screen(suspect: Suspect, stage: Any, probes: Sequence[Probe], config: ScanConfig) -> None:
    for at in range(0, len(probes), config.batch_size):
        screened(suspect, stage, probes[at : at + config.batch_size])


def main() -> None:
    """Measure and write."""
    torch.set_num_threads(1)
    report = {**stamp(), "threads": 1, **measure()}
    RESULTS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
