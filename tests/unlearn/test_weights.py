"""The patch: teacher and student in one model, sharing whatever is not trained."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bdaudit.models.suspect import Suspect
from bdaudit.models.training import relative_groups
from bdaudit.unlearn.weights import Patch


def sizes(patch: Patch) -> dict[str, float]:
    """How far each tensor moved, relative to itself."""
    return {name: float(moved.norm() / patch.originals[name].float().norm()) for name, moved in patch.differences().items()}


def predict(suspect: Suspect) -> Tensor:
    return suspect.predict_batched(suspect.noise([1]), torch.tensor([500]), suspect.encode(["a red cat"]))


def step(suspect: Suspect, patch: Patch) -> None:
    """A few optimiser steps towards nought."""
    optimiser = torch.optim.AdamW(relative_groups(patch.parameters, 0.1), weight_decay=0.0)
    for _ in range(3):
        optimiser.zero_grad()
        suspect.predict(suspect.noise([1]), torch.tensor([500]), suspect.encode(["a red cat"])).square().mean().backward()
        optimiser.step()


@pytest.mark.parametrize("scope", ["cross-attention", "unet"])
def test_the_teacher_is_the_original_bit_for_bit(fresh_suspect: Suspect, scope: str) -> None:
    before = predict(fresh_suspect)
    patch = Patch(fresh_suspect, scope)
    with patch.training():
        step(fresh_suspect, patch)
        student = predict(fresh_suspect)
        with patch.teacher():
            assert torch.equal(predict(fresh_suspect), before)
        assert torch.equal(predict(fresh_suspect), student)
    assert not torch.equal(student, before)
    assert torch.equal(predict(fresh_suspect), student)


def test_the_student_comes_back_also_when_the_block_raises(fresh_suspect: Suspect) -> None:
    patch = Patch(fresh_suspect, "unet")
    with patch.training():
        step(fresh_suspect, patch)
        student = predict(fresh_suspect)
        with pytest.raises(KeyError), patch.teacher():
            raise KeyError
        assert torch.equal(predict(fresh_suspect), student)


def test_the_teacher_keeps_no_gradients_and_the_student_can_go_on(fresh_suspect: Suspect) -> None:
    patch = Patch(fresh_suspect, "cross-attention")
    with patch.training():
        with patch.teacher():
            assert not fresh_suspect.predict(fresh_suspect.noise([1]), torch.tensor([5]), fresh_suspect.encode(["a"])).requires_grad
        held = {name: p.data_ptr() for name, p in patch.parameters.items()}
        step(fresh_suspect, patch)
        assert {name: p.data_ptr() for name, p in patch.parameters.items()} == held
        assert patch.differences().keys() == patch.parameters.keys()


def test_only_the_scopes_tensors_change(fresh_suspect: Suspect) -> None:
    whole = nn.ModuleDict(fresh_suspect.heeding)
    before = {name: value.clone() for name, value in whole.state_dict().items()}
    patch = Patch(fresh_suspect, "cross-attention")
    with patch.training():
        step(fresh_suspect, patch)
    changed = {name for name, value in whole.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == set(patch.differences()) == set(patch.parameters)
    assert all(".attn2." in name for name in changed)


def test_all_that_reads_a_prompt_is_trained_together(fresh_suspect: Suspect) -> None:
    encoders = nn.ModuleDict(fresh_suspect.text.modules)
    assert set(Patch(fresh_suspect, "text-encoder").parameters) == {name for name, _ in encoders.named_parameters()}


def test_what_is_not_trained_is_held_once(fresh_suspect: Suspect) -> None:
    whole = nn.ModuleDict(fresh_suspect.heeding)
    held = {name: p.data_ptr() for name, p in whole.named_parameters()}
    patch = Patch(fresh_suspect, "cross-attention")
    others = held.keys() - patch.parameters.keys()
    assert patch.originals.keys() == patch.parameters.keys()
    with patch.training(), patch.teacher():
        during = {name: p.data_ptr() for name, p in whole.named_parameters()}
    assert all(during[name] == held[name] for name in others)
    assert all(during[name] == patch.originals[name].data_ptr() for name in patch.parameters)


def test_revert_undoes_everything(fresh_suspect: Suspect) -> None:
    before = predict(fresh_suspect)
    patch = Patch(fresh_suspect, "unet")
    with patch.training():
        step(fresh_suspect, patch)
    patch.revert()
    assert torch.equal(predict(fresh_suspect), before)
    assert patch.differences() == {}


def test_half_precision_is_trained_in_float32_and_put_back(half_suspect: Suspect) -> None:
    patch = Patch(half_suspect, "cross-attention")
    with patch.training():
        assert {p.dtype for p in patch.parameters.values()} == {torch.float32}
        moved = next(iter(patch.parameters.values()))
        moved.data = moved.data * (1 + 1e-4)
    assert {p.dtype for p in half_suspect.denoiser.module.parameters()} == {torch.bfloat16}
    assert not any(p.requires_grad for p in half_suspect.denoiser.module.parameters())
    name = next(iter(patch.parameters))
    assert torch.equal(patch.parameters[name], patch.originals[name]), "too little for 16 bits"
    assert sizes(patch) == {name: pytest.approx(1e-4, rel=1e-2)}
    patch.revert()
    assert patch.differences() == {}


def test_changes_are_relative(fresh_suspect: Suspect) -> None:
    patch = Patch(fresh_suspect, "cross-attention")
    name, parameter = next(iter(patch.parameters.items()))
    parameter.data = parameter.data * 1.5
    assert sizes(patch) == {name: pytest.approx(0.5, rel=1e-5)}


def test_differences_lead_from_the_original_to_the_trained(fresh_suspect: Suspect) -> None:
    patch = Patch(fresh_suspect, "cross-attention")
    with patch.training():
        step(fresh_suspect, patch)
    for name, difference in patch.differences().items():
        assert torch.allclose(patch.originals[name] + difference, patch.parameters[name], rtol=1e-6, atol=1e-8)
