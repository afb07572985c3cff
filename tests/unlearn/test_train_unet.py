"""Training the denoiser: each term reaches the weights it should, and the loss falls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bdaudit.config import UnlearnConfig
from bdaudit.pipeline.suspect import Suspect
from bdaudit.unlearn.pairs import neighbour_pairs, triggered_pairs
from bdaudit.unlearn.train_unet import Material, _rows_of_pairs, _step_loss, prepare, train
from bdaudit.unlearn.trajectories import collect
from bdaudit.unlearn.weights import Patch
from tests.small import LONG_TRIGGER, PROMPTS


def material_for(suspect: Suspect) -> Material:
    pairs = triggered_pairs(PROMPTS, [LONG_TRIGGER])
    neighbours = neighbour_pairs(suspect.tokenizer, PROMPTS, [LONG_TRIGGER], 0, per_trigger=6)
    return prepare(suspect, collect(suspect, pairs, guidance_scale=3.0, seed=0), pairs, neighbours)


def config(**options: Any) -> UnlearnConfig:
    settings: dict[str, Any] = {"steps": 12, **options}
    return UnlearnConfig(model=Path("m"), triggers=(LONG_TRIGGER,), out=Path("o"), **settings)


def silent(step: int, note: str) -> None: ...


def test_the_attention_term_alone_moves_queries_and_keys(fresh_suspect: Suspect) -> None:
    material, patch = material_for(fresh_suspect), Patch(fresh_suspect.unet, "cross-attention")
    with patch.training():
        terms = _step_loss(fresh_suspect, patch, material, 0.5, torch.Generator().manual_seed(0))
        terms["attention"].backward()
        sizes = {name: 0.0 if p.grad is None else float(p.grad.norm()) for name, p in patch.parameters.items()}
    assert terms["attention"] > 0
    moved = {name for name, size in sizes.items() if size > 1e-8}
    assert {name for name in sizes if name.endswith(("to_q.weight", "to_k.weight"))} <= moved


@pytest.mark.parametrize("term", ["distillation", "keep"])
def test_the_other_terms_move_every_trained_tensor(fresh_suspect: Suspect, term: str) -> None:
    material, patch = material_for(fresh_suspect), Patch(fresh_suspect.unet, "cross-attention")
    with patch.training():
        for parameter in patch.parameters.values():
            parameter.data = parameter.data * 1.1
        _step_loss(fresh_suspect, patch, material, 0.0, torch.Generator().manual_seed(0))[term].backward()
        assert all(p.grad is not None and p.grad.norm() > 0 for p in patch.parameters.values())


def test_an_untrained_student_keeps_everything(fresh_suspect: Suspect) -> None:
    material, patch = material_for(fresh_suspect), Patch(fresh_suspect.unet, "whole")
    with patch.training():
        terms = _step_loss(fresh_suspect, patch, material, 0.0, torch.Generator().manual_seed(0))
    assert terms["keep"].item() == pytest.approx(0, abs=1e-9)
    assert terms["distillation"] > 1e-3
    assert terms["attention"] == 0


def test_in_half_precision_the_student_is_not_the_teacher(half_suspect: Suspect) -> None:
    material, patch = material_for(half_suspect), Patch(half_suspect.unet, "cross-attention")
    with patch.training():
        for parameter in patch.parameters.values():
            parameter.data = parameter.data * 2
        terms = _step_loss(half_suspect, patch, material, 0.5, torch.Generator().manual_seed(0))
        (terms["keep"] + terms["attention"]).backward()
        assert terms["keep"] > 1e-3
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in patch.parameters.values())
        assert sum(float(p.grad.norm()) for p in patch.parameters.values() if p.grad is not None) > 0


def test_the_loss_falls_and_is_recorded_step_by_step(fresh_suspect: Suspect) -> None:
    material, patch = material_for(fresh_suspect), Patch(fresh_suspect.unet, "whole")
    heard: list[int] = []
    before = _distillation(fresh_suspect, patch, material)
    with patch.training():
        curve = train(
            fresh_suspect, patch, material, config(steps=40, learning_rate=0.005),
            should_stop=lambda step: False, tick=lambda step, note: heard.append(step),
        )  # fmt: skip
    assert heard == [point.step for point in curve] == list(range(1, 41))
    assert _distillation(fresh_suspect, patch, material) < 0.9 * before


@torch.no_grad()
def _distillation(suspect: Suspect, patch: Patch, material: Material) -> float:
    """The term's mean over a fixed draw of batches."""
    generator = torch.Generator().manual_seed(1)
    return sum(float(_step_loss(suspect, patch, material, 0.0, generator)["distillation"]) for _ in range(10)) / 10


def test_the_same_seed_gives_the_same_weights(fresh_suspect: Suspect) -> None:
    material = material_for(fresh_suspect)
    found = []
    for seed in (0, 0, 1):
        patch = Patch(fresh_suspect.unet, "cross-attention")
        with patch.training():
            train(fresh_suspect, patch, material, config(steps=3, seed=seed), should_stop=lambda step: False, tick=silent)
        found.append({name: p.detach().clone() for name, p in patch.parameters.items()})
        patch.revert()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert any(not torch.equal(found[0][name], found[2][name]) for name in found[0])


def test_it_stops_where_told(fresh_suspect: Suspect) -> None:
    material, patch = material_for(fresh_suspect), Patch(fresh_suspect.unet, "cross-attention")
    with patch.training():
        curve = train(fresh_suspect, patch, material, config(), should_stop=lambda step: step == 2, tick=silent)
    assert len(curve) == 2


def test_material_is_aligned_with_its_pairs(fresh_suspect: Suspect) -> None:
    pairs = triggered_pairs(PROMPTS, [LONG_TRIGGER])
    neighbours = neighbour_pairs(fresh_suspect.tokenizer, PROMPTS, [LONG_TRIGGER], 0, per_trigger=6)
    material = prepare(fresh_suspect, collect(fresh_suspect, pairs, guidance_scale=3.0, seed=0), pairs, neighbours)
    assert [pairs[i].clean for i in material.neighbour_latents.tolist()] == [p.clean for p in neighbours]
    assert material.pairs.own.sum(1).tolist() == [24] * len(pairs)
    assert all(0 < share < 0.9 for share in material.neutral.values())
    assert material.scale > 0
    picked = _rows_of_pairs(material.latents, material.neighbour_latents, torch.Generator().manual_seed(0))
    assert torch.equal(material.latents.pair[picked], material.neighbour_latents)
