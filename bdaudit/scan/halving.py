"""Successive halving: a cheap round over all, a dearer one over what stood out, and what is left is measured in full.

Everything measured goes to the state in blocks whose make-up depends on the texts alone, so that a sweep that was stopped goes on
where it was and ends in the same scores.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bdaudit.measure.probe import Stage
from bdaudit.pipeline.state import State
from bdaudit.pipeline.suspect import Suspect
from bdaudit.progress import Progress
from bdaudit.scan.screen import Array, Round, screened, standings
from bdaudit.scan.sources import Probe

ROUNDS = (Round(prompts=2, timesteps=1), Round(prompts=4, timesteps=2))
KEPT = (96, 48)
"""The least that a round keeps; the last is what is measured in full."""
SHARE = 8
"""A round before the last keeps one in so many, where that is more."""
SAMPLE = 128
"""Texts drawn from all that were screened, measured in the later rounds as the null there."""
BLOCK = 64
"""Texts that are measured and kept together."""


@dataclass(frozen=True)
class RoundDone:
    """One round, as the report tells it."""

    texts: int
    passes: int
    """Forward passes a text."""
    kept: int


@dataclass(frozen=True)
class Halved:
    """What came through, the most outstanding first, and what each round did."""

    survivors: tuple[Probe, ...]
    rounds: tuple[RoundDone, ...]


@dataclass(frozen=True)
class Screen:
    """What every sweep needs: the model, its shared trajectories, where to keep results, whom to tell, and the seed."""

    suspect: Suspect
    stage: Stage
    state: State
    progress: Progress
    seed: int


def halve(screen: Screen, name: str, probes: Sequence[Probe], kept: Sequence[int] = KEPT) -> Halved:
    """Screen ``probes`` round by round; ``name`` tells the sweep in progress and state. Their order does not matter."""
    here = screen.stage.latents.shape[:2]
    left = sorted(probes, key=lambda probe: (probe.ids, probe.text))
    sample = random.Random(f"screen {screen.seed} {name}").sample(left, min(SAMPLE, len(left)))
    done: list[RoundDone] = []
    for number, (step, least) in enumerate(zip(ROUNDS, kept, strict=True), start=1):
        last = number == len(ROUNDS)
        null = left if number == 1 else sample
        values = measure(screen, f"{name}-{number}", step, [*left, *([] if number == 1 else null)])
        keep = min(len(left), least if last else max(least, len(left) // SHARE))
        ranks = standings(values[: len(left)], values[-len(null) :]) if left else np.zeros(0)
        ranking = np.argsort(-ranks, kind="stable")
        best = ranking[:keep]
        done.append(RoundDone(len(left), min(step.prompts, here[1]) * min(step.timesteps, here[0]), keep))
        left = [left[i] for i in (best if last else sorted(best))]
    return Halved(tuple(left), tuple(done))


def digest(what: str) -> str:
    """A file's name for what was measured."""
    return f"screen-{hashlib.sha256(what.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}"


def measure(screen: Screen, name: str, step: Round, probes: Sequence[Probe]) -> Array:
    """(N, 3) as ``screened``; each block from the state where it is there. ``name`` tells the sweep in progress."""
    stage, parts = step.stage(screen.stage), []
    for at in range(0, len(probes), BLOCK):
        block = probes[at : at + BLOCK]
        key = digest(f"{screen.seed} {step} {block}")
        rows = screen.state.read_json(key, list[tuple[float, float, float]])
        if rows is None:
            rows = screened(screen.suspect, stage, block).tolist()
            screen.state.write_json(key, rows)
        with screen.state.fitting(key):
            parts.append(np.asarray(rows, dtype=np.float64).reshape(len(block), 3))
        screen.progress(f"screening {name}", min(at + BLOCK, len(probes)), len(probes))
    return np.concatenate(parts) if parts else np.zeros((0, 3))
