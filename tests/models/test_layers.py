"""Layers that come to a device one by one: nothing that a model says changes, and none has its weights there when it is not run.

Without a GPU, the device is torch's meta device, on which every operation with a weight that was left behind is an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bdaudit.errors import BdauditError
from bdaudit.models.conditioning import Conditioning
from bdaudit.models.layers import by_layers
from bdaudit.models.suspect import Suspect
from bdaudit.models.turns import Turns
from tests.models import tiny_dit
from tests.models.families.test_transformer_verbs import opened, reading_little
from tests.models.test_turns import predictions

CPU, META = torch.device("cpu"), torch.device("meta")
FAMILIES = ("sd3", "flux", "pixart", "chroma")


@pytest.fixture(scope="module", autouse=True)
def few_tokens() -> Iterator[None]:
    with reading_little():
        yield


@pytest.fixture(scope="module")
def folders(few_tokens: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: tiny_dit.write(name, tmp_path_factory.mktemp("dit") / name) for name in FAMILIES}


def weights_of(suspect: Suspect) -> dict[str, nn.Parameter]:
    return dict(nn.ModuleDict(suspect.heeding).named_parameters())


@pytest.mark.parametrize("name", FAMILIES)
def test_nothing_that_a_model_says_changes(folders: dict[str, Path], name: str) -> None:
    plain, layered = opened(folders[name]), opened(folders[name])
    before = weights_of(layered)
    Turns({}, {}, CPU, layered.heeding)
    for mine, theirs in zip(predictions(layered), predictions(plain), strict=True):
        assert torch.equal(mine, theirs)
    assert all(weights_of(layered)[key] is parameter for key, parameter in before.items()), "each weight is at home again"


def elsewhere(said: Conditioning) -> Conditioning:
    tensors = (None if tensor is None else tensor.to(META) for tensor in (said.states, said.mask, said.pooled))
    return Conditioning(*tensors)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_weight_that_a_pass_needs_is_brought_and_at_most_a_layer_and_what_holds_it_is_there(
    folders: dict[str, Path], name: str
) -> None:
    suspect = opened(folders[name])
    module, seen = suspect.denoiser.module, set[str]()

    def look(layer: str) -> Any:
        def hook(*_: Any) -> None:
            there = {key.rpartition(".")[0] for key, parameter in module.named_parameters() if parameter.device == META}
            assert all(f"{layer}.".startswith(f"{owner}.") or owner == "" for owner in there), (layer, there)
            seen.update(there)

        return hook

    by_layers(module, META)
    for key, layer in module.named_modules():
        layer.register_forward_pre_hook(look(key))
    heard = elsewhere(suspect.encode(tiny_dit.PROMPTS[:2]))
    z, t = suspect.noise([1, 2]).to(META), suspect.schedule.times(4, 1.0)[:2].to(META)
    with torch.no_grad():
        out = suspect.denoiser.predict(z, t, heard, 5.0)
    assert (out.device, out.shape) == (META, z.shape)
    own = {key.rpartition(".")[0] for key, _ in module.named_parameters()}
    assert len(seen) > 0.9 * len(own)
    assert {parameter.device for parameter in module.parameters()} == {CPU}


class Again(nn.Module):
    """A layer that runs within itself, and one that fails."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((2,), 3.0), requires_grad=False)
        self.register_buffer("shift", torch.ones(2))

    def forward(self, x: Tensor, times: int) -> Tensor:
        if times < 0:
            raise ValueError("no such thing")
        y = self(x, times - 1) if times else x
        moved: Tensor = y * self.scale + self.shift
        return moved


def test_a_layer_that_runs_within_itself_comes_once_and_one_that_fails_leaves_too() -> None:
    layer = Again()
    home, shift = layer.scale, layer.shift
    by_layers(layer, META)
    assert layer.shift.device == META
    assert shift.device == CPU
    assert layer(torch.ones(2, device=META), 2).device == META
    assert layer.scale is home
    with pytest.raises(ValueError, match="no such thing"):
        layer(torch.ones(2, device=META), -1)
    assert layer.scale is home
    with pytest.raises(RuntimeError):
        layer(torch.ones(2), 0)
    assert layer.scale is home
    here = Again()
    by_layers(here, CPU)
    assert here(torch.ones(2), 1).tolist() == [13.0, 13.0]


def test_gradients_are_refused() -> None:
    layer = Again()
    Turns({}, {}, CPU, {"unet": layer})
    with pytest.raises(BdauditError, match="gradients need all of them there"):
        layer(torch.ones(2, requires_grad=True), 0)
