"""What a repair kept comes back equal; what is none of it is told as damage, and never carried on from."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bdaudit.errors import UsageError
from bdaudit.kept_state import State
from bdaudit.measure.effect import Effect, Reading
from bdaudit.records import Attempt, LossPoint
from bdaudit.unlearn.loop import Checkpoint
from bdaudit.unlearn.repair.resume import Training, effects, keep_training, kept_training, latents
from bdaudit.unlearn.repair.trajectories import Latents

SETS = ("closed-form", "cross-attention", "unet")
DAMAGED = "is damaged .*; remove the folder to begin anew"
EFFECT = Effect("cf", ("a", "b"), *(Reading(2.0, (0.5, 1.0)) for _ in range(3)), beside="what harmless texts did before")
TRAINING = Training(
    "cross-attention",
    Checkpoint({"student.a": torch.ones(2, 3)}, [LossPoint(step=1, total=0.5, terms={"keep": 0.5})], False),
    [Attempt(trainable="closed-form", steps=0, outcome="failed: x")],
    16,
)


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path / "kept", "key")


def resumed(state: State, steps: int = 5) -> Training | None:
    return kept_training(state, SETS, steps, lambda trainable: {"a": torch.zeros(2, 3)})


def never() -> Any:
    raise AssertionError("measured again")


def test_what_was_kept_comes_back(state: State) -> None:
    assert resumed(state) is None
    assert effects(state, lambda: [EFFECT]) == effects(state, never) == [EFFECT]
    keep_training(state, TRAINING)
    found = resumed(state)
    assert found is not None
    assert (found.attempts, found.checkpoint.curve, found.batch_size) == (TRAINING.attempts, TRAINING.checkpoint.curve, 16)
    assert torch.equal(found.checkpoint.tensors["student.a"], torch.ones(2, 3))


def test_a_training_of_all_its_steps_comes_back(state: State) -> None:
    keep_training(state, TRAINING)
    assert resumed(state, steps=1) is not None
    with pytest.raises(UsageError, match=DAMAGED):
        resumed(state, steps=0)


def changed(**notes: Any) -> Training:
    return dataclasses.replace(TRAINING, **notes)


@pytest.mark.parametrize(
    "training",
    [
        changed(trainable="unet"),
        changed(attempts=[]),
        changed(attempts=TRAINING.attempts * 3),
        changed(batch_size=0),
        changed(checkpoint=dataclasses.replace(TRAINING.checkpoint, curve=TRAINING.checkpoint.curve * 9)),
        changed(checkpoint=dataclasses.replace(TRAINING.checkpoint, tensors={"student.a": torch.ones(1, 3)})),
        changed(checkpoint=dataclasses.replace(TRAINING.checkpoint, tensors={"student.b": torch.ones(2, 3)})),
        changed(batch_size="many"),
    ],
    ids=range(8),
)
def test_a_training_that_does_not_fit_is_damage(state: State, training: Training) -> None:
    keep_training(state, training)
    with pytest.raises(UsageError, match=DAMAGED):
        resumed(state)


@pytest.mark.parametrize("kept", [5, [], {}, [5], [dataclasses.asdict(EFFECT) | {"shift": {"value": 1.0, "null": []}}], [{"text": "cf"}]])
def test_effects_that_are_none_are_damage(state: State, kept: Any) -> None:
    state.write_json("before", json.loads(json.dumps(kept)))
    with pytest.raises(UsageError, match=DAMAGED):
        effects(state, never)


def rows(z: tuple[int, ...] = (4, 4, 2, 2), t: int = 4, pair: tuple[int, ...] = (0, 0, 1, 1)) -> Latents:
    return Latents(torch.zeros(z), torch.zeros(t, dtype=torch.int64), torch.tensor(pair))


def test_latents_come_back(state: State) -> None:
    for collect in (rows, never):
        assert torch.equal(latents(state, torch.device("cpu"), 2, collect).pair, rows().pair)


@pytest.mark.parametrize(
    "kept",
    [lambda: rows(z=(4, 4)), lambda: rows(t=3), lambda: rows(pair=(0, 0, 1, 2)), lambda: rows(pair=(0, 0, 0, 0)), lambda: rows(pair=())],
)
def test_latents_of_other_prompts_are_damage(state: State, kept: Callable[[], Latents]) -> None:
    latents(state, torch.device("cpu"), 2, kept)
    with pytest.raises(UsageError, match=DAMAGED):
        latents(state, torch.device("cpu"), 2, never)
