"""Parts that take turns on a device: who is there when, and that nothing they say changes. Without a GPU, a device is what is recorded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bdaudit.errors import BdauditError
from bdaudit.models import load as loading
from bdaudit.models.load import load
from bdaudit.models.memory import Away
from bdaudit.models.suspect import Suspect
from bdaudit.models.turns import Turns
from bdaudit.untrusted.inspect import inspect
from tests.models import tiny_dit
from tests.models.families.test_transformer_verbs import reading_little
from tests.small import runs_with

CPU = torch.device("cpu")


class Part(nn.Module):
    """A layer that keeps where it was sent; it lies nowhere else than here."""

    def __init__(self, name: str, log: list[str]) -> None:
        super().__init__()
        self.layer, self.name, self.log = nn.Linear(2, 2), name, log
        self.requires_grad_(False)

    def to(self, device: torch.device | str) -> Part:  # type: ignore[override]
        self.log.append(f"{self.name} → {device}")
        return self

    def forward(self, x: Tensor, *, more: dict[str, Tensor] | None = None) -> Tensor:
        self.log.append(f"{self.name} runs")
        y: Tensor = self.layer(x)
        return y


@pytest.fixture
def log() -> list[str]:
    return []


def test_who_runs_is_there_and_the_others_leave(log: list[str]) -> None:
    clip, t5, denoiser = (Part(name, log) for name in ("clip", "t5", "denoiser"))
    turns = Turns({"clip": clip, "t5": t5}, {"denoiser": denoiser}, torch.device("cuda:0"))
    assert log == ["clip → cpu", "t5 → cpu"]
    assert turns.there == ()


def test_each_call_brings_its_own_part(log: list[str]) -> None:
    clip, t5, denoiser = (Part(name, log) for name in ("clip", "t5", "denoiser"))
    Turns({"clip": clip, "t5": t5}, {"denoiser": denoiser}, CPU)
    log.clear()
    for part in (clip, t5, denoiser):
        part(torch.ones(1, 2), more={"x": torch.ones(1)})
    first, second, third = ["t5 → cpu", "clip → cpu", "clip runs"], ["clip → cpu", "t5 → cpu", "t5 runs"], ["clip → cpu", "t5 → cpu"]
    assert log == [*first, *second, *third, "denoiser → cpu", "denoiser runs"]


def test_gradients_are_refused_and_their_absence_is_not(log: list[str]) -> None:
    part = Part("clip", log)
    Turns({"clip": part}, {}, CPU)
    assert part(torch.ones(1, 2)).shape == (1, 2)
    soft = torch.ones(1, 2, requires_grad=True)
    with pytest.raises(BdauditError, match="take turns on the device"):
        part(soft)
    with torch.no_grad():
        part(soft)
    part.requires_grad_(True)
    with pytest.raises(BdauditError, match="gradients need all of them there"):
        part(torch.ones(1, 2))


@pytest.fixture(scope="module", autouse=True)
def few_tokens() -> Iterator[None]:
    with reading_little():
        yield


def predictions(suspect: Suspect) -> tuple[Tensor, Tensor, Tensor]:
    heard = suspect.encode(tiny_dit.PROMPTS[:2])
    z, t = suspect.noise([1, 2]), suspect.schedule.times(4, 1.0)[:2]
    return heard.states, suspect.unconditional().states, suspect.predict_batched(z, t, heard)


@pytest.mark.parametrize("name", ["sd3", "flux", "pixart"])
def test_nothing_that_a_model_says_changes(name: str, tmp_path: Path) -> None:
    inspection = inspect(tiny_dit.write(name, tmp_path / name), size=(16, 16))
    plain, shared = (load(inspection, device="cpu") for _ in range(2))
    Turns(shared.text.modules, {"transformer": shared.denoiser.module}, CPU)
    for mine, theirs in zip(predictions(shared), predictions(plain), strict=True):
        assert torch.equal(mine, theirs)


def test_a_scan_says_what_came_layer_by_layer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = tiny_dit.write("flux", tmp_path / "flux")
    (tmp_path / "texts.txt").write_text("a red cat\nthe old house\nthe sea", encoding="utf-8")
    monkeypatch.setattr(loading, "waiting", lambda *_: Away(("transformer", "text_encoder", "text_encoder_2"), ("transformer",)))
    asked = ("--candidates", tmp_path / "texts.txt", "--seed", 0, "--effort", "low", "--size", "16x16")
    code, report = runs_with(tmp_path / "texts.txt", monkeypatch, capsys)("scan", model, *asked)
    assert code in (0, 1), report["exit"]
    notes = report["coverage"]["notes"]
    assert "transformer, text_encoder, text_encoder_2 came to the device by turns, since the weights do not fit it together" in notes
    assert "transformer came layer by layer, since it does not fit the device by itself" in notes
