"""What an unlearning run keeps for the next one: the effects at the start, the latents, and training's last checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from bdaudit.config import UnlearnConfig
from bdaudit.errors import UsageError
from bdaudit.measure.effect import Effect, Reading
from bdaudit.measure.envelope import run_key, settings
from bdaudit.pipeline.device import chosen
from bdaudit.pipeline.state import State
from bdaudit.report.records import Attempt, LossPoint
from bdaudit.unlearn.loop import Checkpoint
from bdaudit.unlearn.trajectories import Latents

UNTOUCHED = ("model", "out", "patch", "state", "from_report", "from_patch", "keep_failed", "strict", "adapters")
"""Settings that change nothing of what is computed; the model, the adapters and the report's triggers are in the key by themselves."""


def open_state(config: UnlearnConfig, digest: str, adapters: Sequence[str] = ()) -> State:
    """The run's folder; ``adapters`` are digests and scales.

    Raises:
        UsageError: it belongs to another run.
    """
    kept = {name: value for name, value in settings(config).items() if name not in UNTOUCHED} | chosen(config.device, config.dtype)
    return State(config.state, run_key("unlearn", kept | ({"adapters": list(adapters)} if adapters else {}), digest))


@dataclass(frozen=True)
class Training:
    """Where training stood."""

    trainable: str
    checkpoint: Checkpoint
    attempts: list[Attempt]
    """The sets that were trained and found wanting before."""
    batch_size: int


def keep_training(state: State, training: Training) -> None:
    """In place of an older one."""
    notes = {
        "trainable": training.trainable,
        "curve": [dataclasses.asdict(point) for point in training.checkpoint.curve],
        "done": training.checkpoint.done,
        "attempts": [dataclasses.asdict(attempt) for attempt in training.attempts],
        "batch_size": training.batch_size,
    }
    state.write_tensors("training", training.checkpoint.tensors, notes)


def kept_training(state: State) -> Training | None:
    """What ``keep_training`` kept last."""
    kept = state.read_tensors("training")
    if kept is None:
        return None
    tensors, notes = kept
    with fitting(state):
        checkpoint = Checkpoint(tensors, [LossPoint(**point) for point in notes["curve"]], notes["done"])
        return Training(notes["trainable"], checkpoint, [Attempt(**a) for a in notes["attempts"]], notes["batch_size"])


def effects(state: State, measure: Callable[[], list[Effect]]) -> list[Effect]:
    """Measured once, kept from then on."""
    kept = state.read_json("before")
    if kept is None:
        found = measure()
        state.write_json("before", [dataclasses.asdict(effect) for effect in found])
        return found
    with fitting(state):
        return [_effect(e) for e in kept]


def _effect(kept: dict[str, Any]) -> Effect:
    readings = (Reading(kept[name]["value"], tuple(kept[name]["null"])) for name in ("shift", "common", "states"))
    return Effect(kept["text"], tuple(kept["null_texts"]), *readings)


def latents(state: State, device: torch.device, collect: Callable[[], Latents]) -> Latents:
    """Collected once, kept from then on."""
    kept = state.read_tensors("latents")
    if kept is None:
        found = collect()
        state.write_tensors("latents", {"z": found.z, "t": found.t, "pair": found.pair}, None)
        return found
    with fitting(state):
        return Latents(*(kept[0][name].to(device) for name in ("z", "t", "pair")))


@contextmanager
def fitting(state: State) -> Iterator[None]:
    """A block that reads what was kept; whatever does not fit is told as damage."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"--state {state.folder} is damaged ({error}); remove the folder to begin anew") from error
