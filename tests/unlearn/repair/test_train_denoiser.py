"""Training the denoiser: each term reaches the weights it should, and the loss falls."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from bdaudit.measure.controls import harmless_texts
from bdaudit.models.attention import Recording, recorded
from bdaudit.models.suspect import Suspect
from bdaudit.models.training import checkpointed, halving
from bdaudit.unlearn.loop import Course
from bdaudit.unlearn.repair.prompt_pairs import neighbour_pairs, triggered_pairs
from bdaudit.unlearn.repair.train_denoiser import (
    EMPTY,
    KEPT,
    Batch,
    Material,
    _rows_of_pairs,
    backward,
    draw,
    kept_term,
    prepare,
    train,
    triggered_terms,
)
from bdaudit.unlearn.repair.trajectories import collect
from bdaudit.unlearn.weights import Patch
from tests.models.test_suspect import crowded
from tests.small import LONG_TRIGGER, PROMPTS

WEIGHT = 0.5
"""λ, the attention term's share."""


def material_for(suspect: Suspect) -> Material:
    pairs = triggered_pairs(PROMPTS, [LONG_TRIGGER])
    neighbours = neighbour_pairs(PROMPTS, {LONG_TRIGGER: harmless_texts(suspect.tokenizer, LONG_TRIGGER, 6, 0)}, 0)
    return prepare(suspect, collect(suspect, pairs, guidance_scale=3.0, seed=0), pairs, neighbours)


def batch_of(suspect: Suspect, material: Material, seed: int = 0) -> Batch:
    return draw(suspect, material, torch.Generator().manual_seed(seed))


def gradients(patch: Patch) -> dict[str, Tensor]:
    return {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in patch.parameters.items()}


def test_the_attention_term_alone_moves_queries_and_keys(fresh_suspect: Suspect) -> None:
    material, patch = material_for(fresh_suspect), Patch(fresh_suspect, "cross-attention")
    with patch.training():
        with triggered_terms(fresh_suspect, patch, material, batch_of(fresh_suspect, material).rows, maps=True) as (_, attention):
            attention.backward()
        sizes = {name: float(gradient.norm()) for name, gradient in gradients(patch).items()}
    assert attention > 0
    moved = {name for name, size in sizes.items() if size > 1e-8}
    assert {name for name in sizes if name.endswith(("to_q.weight", "to_k.weight"))} <= moved


@pytest.mark.parametrize("term", ["distillation", "keep"])
def test_the_other_terms_move_every_trained_tensor(fresh_suspect: Suspect, term: str) -> None:
    material, patch = material_for(fresh_suspect), Patch(fresh_suspect, "cross-attention")
    batch = batch_of(fresh_suspect, material)
    with patch.training():
        for parameter in patch.parameters.values():
            parameter.data = parameter.data * 1.1
        if term == "keep":
            kept_term(fresh_suspect, patch, material, batch.kept_rows, batch.kept_heard).backward()
        else:
            with triggered_terms(fresh_suspect, patch, material, batch.rows, maps=False) as (distillation, _):
                distillation.backward()
        assert all(p.grad is not None and p.grad.norm() > 0 for p in patch.parameters.values())


def test_an_untrained_student_keeps_everything(fresh_suspect: Suspect) -> None:
    material, patch = material_for(fresh_suspect), Patch(fresh_suspect, "unet")
    with patch.training():
        terms = backward(fresh_suspect, patch, material, batch_of(fresh_suspect, material), 0.0)
    assert terms["keep"] == pytest.approx(0, abs=1e-9)
    assert terms["distillation"] > 1e-3
    assert terms["attention"] == 0
    assert terms["total"] == pytest.approx(terms["distillation"], abs=1e-6)


def test_in_half_precision_the_student_is_not_the_teacher(half_suspect: Suspect) -> None:
    material, patch = material_for(half_suspect), Patch(half_suspect, "cross-attention")
    with patch.training():
        for parameter in patch.parameters.values():
            parameter.data = parameter.data * 2
        terms = backward(half_suspect, patch, material, batch_of(half_suspect, material), 0.5)
        assert terms["keep"] > 1e-3
        assert all(torch.isfinite(gradient).all() for gradient in gradients(patch).values())
        assert sum(float(gradient.norm()) for gradient in gradients(patch).values()) > 0


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_gradient_checkpointing_changes_no_gradient(fresh_suspect: Suspect, weight: float) -> None:
    material, patch = material_for(fresh_suspect), Patch(fresh_suspect, "unet")
    batch = batch_of(fresh_suspect, material)
    found = []
    for on in (False, True):
        passes: list[int] = []
        handle = fresh_suspect.denoiser.module.down_blocks[0].resnets[0].register_forward_pre_hook(lambda *_, seen=passes: seen.append(1))
        with patch.training(), checkpointed(fresh_suspect.denoiser.module, on):
            backward(fresh_suspect, patch, material, batch, weight)
            found.append((gradients(patch), len(passes)))
        handle.remove()
    (plain, once), (again, twice) = found
    assert twice > once, "activations were computed again"
    assert all(torch.allclose(plain[name], again[name], rtol=1e-4, atol=1e-7) for name in plain)
    assert not fresh_suspect.denoiser.module.is_gradient_checkpointing


def test_what_checkpointing_computes_again_is_not_kept(fresh_suspect: Suspect, monkeypatch: pytest.MonkeyPatch) -> None:
    recordings: list[Recording] = []

    @contextmanager
    def seen(*arguments: Any, **options: Any) -> Iterator[Recording]:
        with recorded(*arguments, **options) as recording:
            recordings.append(recording)
            yield recording

    material, patch = material_for(fresh_suspect), Patch(fresh_suspect, "unet")
    monkeypatch.setattr("bdaudit.unlearn.repair.train_denoiser.recorded", seen)
    terms = triggered_terms(fresh_suspect, patch, material, torch.arange(2), maps=True)
    with patch.training(), checkpointed(fresh_suspect.denoiser.module, True), terms as (distillation, attention):
        taught, student = recordings
        assert taught.maps
        (distillation + attention).backward()  # type: ignore[no-untyped-call]
        assert not student.maps


def test_a_full_memory_halves_the_passes_and_changes_no_gradient(fresh_suspect: Suspect) -> None:
    material = material_for(fresh_suspect)
    batch = batch_of(fresh_suspect, material)
    small = crowded(fresh_suspect, room=9, batch_size=64)
    found = []
    for suspect in (fresh_suspect, small):
        patch = Patch(suspect, "cross-attention")
        with patch.training():
            run = partial(backward, suspect, patch, material, batch, 0.5)
            found.append((halving(suspect, patch, KEPT + EMPTY, run), gradients(patch)))
    assert small.batch_size == 8
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-4)
    assert all(torch.allclose(found[0][1][name], found[1][1][name], rtol=1e-3, atol=1e-6) for name in found[0][1])


def test_a_memory_that_does_not_hold_one_is_an_error(fresh_suspect: Suspect) -> None:
    patch = Patch(fresh_suspect, "cross-attention")
    suspect = replace(fresh_suspect, batch_size=4)

    def full() -> None:
        raise torch.cuda.OutOfMemoryError

    with pytest.raises(torch.cuda.OutOfMemoryError):
        halving(suspect, patch, 32, full)
    assert suspect.batch_size == 1


def test_the_loss_falls_and_is_recorded_step_by_step(fresh_suspect: Suspect) -> None:
    material, patch = material_for(fresh_suspect), Patch(fresh_suspect, "unet")
    heard: list[int] = []
    before = _distillation(fresh_suspect, patch, material)
    course = Course(steps=40, seed=0, rate=0.005, tick=lambda step, note: heard.append(step))
    with patch.training():
        curve = train(fresh_suspect, patch, material, WEIGHT, course)
    assert heard == [point.step for point in curve] == list(range(1, 41))
    assert _distillation(fresh_suspect, patch, material) < 0.9 * before


def _distillation(suspect: Suspect, patch: Patch, material: Material) -> float:
    """The term's mean over a fixed draw of batches."""
    total = 0.0
    for seed in range(10):
        with torch.no_grad(), triggered_terms(suspect, patch, material, batch_of(suspect, material, seed).rows, maps=False) as (term, _):
            total += float(term) / 10
    return total


def test_the_same_seed_gives_the_same_weights(fresh_suspect: Suspect) -> None:
    material = material_for(fresh_suspect)
    found = []
    for seed in (0, 0, 1):
        patch = Patch(fresh_suspect, "cross-attention")
        with patch.training():
            train(fresh_suspect, patch, material, WEIGHT, Course(steps=3, seed=seed))
        found.append({name: p.detach().clone() for name, p in patch.parameters.items()})
        patch.revert()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert any(not torch.equal(found[0][name], found[2][name]) for name in found[0])


def test_it_stops_where_told(fresh_suspect: Suspect) -> None:
    material, patch = material_for(fresh_suspect), Patch(fresh_suspect, "cross-attention")
    with patch.training():
        curve = train(fresh_suspect, patch, material, WEIGHT, Course(steps=12, seed=0, should_stop=lambda step: step == 2))
    assert len(curve) == 2


def test_nothing_that_is_not_trained_is_held_twice(fresh_suspect: Suspect) -> None:
    material = material_for(fresh_suspect)
    before = _held()
    patch = Patch(fresh_suspect, "cross-attention")
    trained = sum(p.numel() for p in patch.parameters.values())
    rest = sum(p.numel() for p in fresh_suspect.denoiser.module.parameters()) - trained
    seen: list[int] = []
    with patch.training():
        tick = lambda step, note: seen.append(_held() if step == 2 else 0)  # noqa: E731
        train(fresh_suspect, patch, material, WEIGHT, Course(steps=2, seed=0, tick=tick))
    beside = 4 * trained  # the originals, the gradients, and Adam's two moments
    assert beside < rest / 4, "a second copy of the rest would show"
    assert beside <= max(seen) - before < beside + rest / 4


def _held() -> int:
    """Numbers in the tensors that are alive, each storage once."""
    gc.collect()
    alive = [t for t in gc.get_objects() if type(t) in (Tensor, torch.nn.Parameter) and t.is_floating_point()]
    gradients = [t.grad for t in alive if t.is_leaf and t.grad is not None]
    return sum({t.data_ptr(): t.untyped_storage().nbytes() // t.element_size() for t in (*alive, *gradients)}.values())


def test_material_is_aligned_with_its_pairs(fresh_suspect: Suspect) -> None:
    pairs = triggered_pairs(PROMPTS, [LONG_TRIGGER])
    neighbours = neighbour_pairs(PROMPTS, {LONG_TRIGGER: harmless_texts(fresh_suspect.tokenizer, LONG_TRIGGER, 6, 0)}, 0)
    material = prepare(fresh_suspect, collect(fresh_suspect, pairs, guidance_scale=3.0, seed=0), pairs, neighbours)
    assert [pairs[i].clean for i in material.neighbour_latents.tolist()] == [p.clean for p in neighbours]
    assert material.pairs.own.sum(1).tolist() == [24] * len(pairs)
    assert all(0 < share < 0.9 for share in material.neutral.values())
    assert material.scale > 0
    picked = _rows_of_pairs(material.latents, material.neighbour_latents, torch.Generator().manual_seed(0))
    assert torch.equal(material.latents.pair[picked], material.neighbour_latents)
