"""What an unlearning run keeps for the next one: the effects at the start, the latents, and training's last checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bdaudit.kept_state import State, check_shapes
from bdaudit.measure.effect import Effect
from bdaudit.records import Attempt, LossPoint
from bdaudit.unlearn.loop import Checkpoint
from bdaudit.unlearn.repair.trajectories import Latents

UNTOUCHED = ("model", "prompts_file", "out", "patch", "state", "from_report", "keep_failed", "strict", "adapters", "workers")
"""Settings that change nothing of what is computed; the model, the adapters and the report's triggers are in the key by themselves."""


@dataclass(frozen=True)
class Training:
    """Where training stood."""

    trainable: str
    checkpoint: Checkpoint
    attempts: list[Attempt]
    """The sets that were trained and found wanting before."""
    batch_size: int


@dataclass(frozen=True)
class _Notes:
    """What stands beside a checkpoint's tensors."""

    trainable: str
    curve: list[LossPoint]
    done: bool
    attempts: list[Attempt]
    batch_size: int


def keep_training(state: State, training: Training) -> None:
    """In place of an older one."""
    found = training.checkpoint
    notes = _Notes(training.trainable, found.curve, found.done, training.attempts, training.batch_size)
    state.write_tensors("training", found.tensors, dataclasses.asdict(notes))


def kept_training(state: State, sets: Sequence[str], steps: int, modules: Callable[[str], Mapping[str, Tensor]]) -> Training | None:
    """What ``keep_training`` kept last. ``sets`` are the trainable sets in their order, ``modules`` gives the tensors of each.

    Raises:
        UsageError: it is no training of these sets for so many steps.
    """
    kept = state.read_tensors("training", _Notes)
    if kept is None:
        return None
    notes: _Notes = kept[1]
    with state.fitting("the training"):
        before = [attempt.trainable for attempt in notes.attempts]
        if [*before, notes.trainable] != list(sets[: len(before) + 1]) or len(notes.curve) > steps or notes.batch_size < 1:
            raise ValueError("it is of other sets, of more steps, or of no batch size")
        check_shapes(kept[0], {f"student.{name}": tensor for name, tensor in modules(notes.trainable).items()})
        return Training(notes.trainable, Checkpoint(kept[0], notes.curve, notes.done), notes.attempts, notes.batch_size)


def effects(state: State, measure: Callable[[], list[Effect]], name: str = "before") -> list[Effect]:
    """Measured once, kept from then on."""
    kept: list[Effect] | None = state.read_json(name, list[Effect])
    if kept is None:
        found = measure()
        state.write_json(name, [dataclasses.asdict(effect) for effect in found])
        return found
    with state.fitting(f"kept-{name}.json"):
        if not kept or any(len(r.null) != len(e.null_texts) or not r.null for e in kept for r in (e.shift, e.common, e.states)):
            raise ValueError("an effect lacks figures")
    return kept


def contexts(state: State, look: Callable[[], tuple[str, ...]]) -> tuple[str, ...]:
    """Looked for once, kept from then on."""
    kept: tuple[str, ...] | None = state.read_json("contexts", tuple[str, ...])
    if kept is None:
        kept = look()
        state.write_json("contexts", kept)
    return kept


def latents(state: State, device: torch.device, pairs: int, collect: Callable[[], Latents]) -> Latents:
    """Of so many pairs; collected once, kept from then on."""
    kept = state.read_tensors("latents")
    if kept is None:
        found = collect()
        state.write_tensors("latents", {"z": found.z, "t": found.t, "pair": found.pair}, None)
        return found
    with state.fitting("the latents"):
        z, t, pair = (kept[0][name] for name in ("z", "t", "pair"))
        if z.ndim != 4 or not len(z) == len(t) == len(pair) or set(pair.tolist()) != set(range(pairs)) or t.dtype != torch.int64:
            raise ValueError("they are not of these prompts")
        return Latents(*(tensor.to(device) for tensor in (z, t, pair)))
