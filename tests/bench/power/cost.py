"""What a candidate costs: the scan's tiers, a sweep's screens, and T2IShield's FTT at its 50 steps. ``python -m tests.bench.power.cost``.

All on the clean fixture, in one run on one thread, on prompts of ``prompts.txt``: the scan by its default draws of them, FTT on the first
8, each with the candidate at prefix, middle and suffix. A pass is one latent through the UNet, counted by a hook, so that a guided step is
two. What all candidates share (draws, plain paths, controls) is counted apart. Writes ``results/cost.json``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from bdaudit.config import ScanConfig
from bdaudit.config.effort import EFFORTS
from bdaudit.measure.draws import Draws, make_draws
from bdaudit.measure.insertion import POSITIONS, insert
from bdaudit.measure.paths import Paths, make_paths, path_effects
from bdaudit.measure.text_effects import TOGETHER, text_effects
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
FULL, SCREENED, FTT = 32, 256, 3
"""Candidates that each is timed on."""
PROMPTS = 8
"""That FTT is given."""


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
    spent, words = EFFORTS[config.effort], tokenizer.ordinary_words()

    def shared() -> tuple[Draws, Paths]:
        draws = make_draws(suspect, prompts(), spent.draws, config.guidance, config.seed)
        return draws, make_paths(suspect, draws.part(slice(spent.paths)), spent.steps, config.seed)

    draws, paths = shared()
    first, further = draws.part(slice(spent.first)), draws.part(slice(spent.first, None))
    probes = [Probe(word, content_ids(suspect.tokenizer, word)) for word in words[:SCREENED]]
    text_effects(suspect, draws, words[:2], attention=True)  # warm
    found: dict[str, Any] = {
        "first draws": each(suspect, lambda: [text_effects(suspect, first, some, attention=False) for some in _together(words)], FULL),
        "further draws": each(suspect, lambda: [text_effects(suspect, further, some, attention=True) for some in _together(words)], FULL),
        "paths": each(suspect, lambda: [path_effects(suspect, paths, some) for some in _together(words)], FULL),
        **{
            f"screen, round {number}": each(suspect, lambda step=step: _screen(suspect, step.of(draws), probes, config), SCREENED)
            for number, step in enumerate(ROUNDS, start=1)
        },
        "ftt at 50 steps": each(suspect, lambda: ftt(suspect, prompts()[:PROMPTS], words[:FTT]), FTT),
    }
    rows, seconds = counted(suspect, shared)
    rival = found["ftt at 50 steps"]
    ratios = {
        name: {"passes": rival["passes"] / own["passes"], "seconds": rival["seconds"] / own["seconds"]}
        for name, own in found.items()
        if own is not rival
    }
    return {
        "draws": asdict(spent),
        "prompts": PROMPTS,
        "positions": POSITIONS,
        "each": found,
        "times cheaper": ratios,
        "shared": {"passes": rows, "seconds": seconds},
    }


def _together(words: Sequence[str]) -> list[Sequence[str]]:
    """``FULL`` words in the batches of a scan."""
    return [words[at : at + TOGETHER] for at in range(0, FULL, TOGETHER)]


def _screen(suspect: Suspect, draws: Draws, probes: Sequence[Probe], config: ScanConfig) -> None:
    for at in range(0, len(probes), config.batch_size):
        screened(suspect, draws, probes[at : at + config.batch_size])


def main() -> None:
    """Measure and write."""
    torch.set_num_threads(1)
    report = {**stamp(), "threads": 1, **measure()}
    RESULTS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
