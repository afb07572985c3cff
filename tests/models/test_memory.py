"""What fits is loaded, what does not is told by part, before anything is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from bdaudit.errors import BdauditError
from bdaudit.models import load as loading
from bdaudit.models.memory import Away, check_fits, room_of, waiting
from bdaudit.untrusted.inspect import inspect

FLUX = {"transformer": 11_901_408_320, "text_encoder_2": 4_762_310_656, "text_encoder": 123_060_480, "vae": 83_819_683}
CPU = torch.device("cpu")


def test_as_many_bytes_as_there_are_fit_and_no_more() -> None:
    check_fits({"a": 10, "b": 5}, torch.float32, CPU, 60)
    check_fits({"a": 10, "b": 5}, torch.bfloat16, CPU, 30)
    with pytest.raises(BdauditError):
        check_fits({"a": 10, "b": 5}, torch.float32, CPU, 59)


def test_a_room_that_cannot_be_told_holds_all() -> None:
    check_fits(FLUX, torch.float32, CPU, 0)
    assert room_of(CPU) > 1 << 30


@pytest.mark.parametrize(("dtype", "advice"), [(torch.bfloat16, "or --device cpu"), (torch.float32, "--dtype bfloat16")])
def test_the_figures_stand_by_part(dtype: torch.dtype, advice: str) -> None:
    with pytest.raises(BdauditError) as error:
        check_fits(FLUX, dtype, torch.device("cuda:0"), 16_000_000_000)
    said = str(error.value)
    total = sum(FLUX.values()) * dtype.itemsize / 1e9
    assert f"take {total:.1f} GB" in said
    assert f"(transformer {FLUX['transformer'] * dtype.itemsize / 1e9:.1f}, text_encoder_2" in said
    assert "cuda:0 has 16.0 GB free; nothing was loaded" in said
    assert advice in said


HEEDING = ("transformer", "text_encoder", "text_encoder_2")
GPU = torch.device("cuda:0")
READERS = HEEDING[1:]


@pytest.mark.parametrize(
    ("room", "machine", "away"),
    [
        (33_900_000_000, 64_000_000_000, ()), (33_700_000_000, 64_000_000_000, READERS), (33_496_000_000, 64_000_000_000, READERS),
        (33_495_000_000, 64_000_000_000, HEEDING), (24_000_000_000, 64_000_000_000, HEEDING), (33_700_000_000, 0, READERS),
        (0, 64_000_000_000, ()),
    ],
)  # fmt: skip
def test_of_flux_as_few_parts_wait_as_can(room: int, machine: int, away: tuple[str, ...]) -> None:
    """In GB: transformer 23.80, T5 9.52, CLIP 0.25, autoencoder 0.17: 33.74 together, 33.49 without CLIP, 23.97 without readers."""
    assert waiting(FLUX, HEEDING, torch.bfloat16, GPU, room, machine) == Away(away)
    assert waiting(FLUX, HEEDING, torch.bfloat16, GPU, room, machine, LARGEST) == Away(away)


LARGEST = {"transformer": 56_623_104, "text_encoder_2": 131_596_288, "text_encoder": 37_945_344, "vae": 2_359_296}
"""The modulation of a double block, T5's tokens and CLIP's."""


@pytest.mark.parametrize(
    ("room", "machine", "layered"),
    [
        (23_900_000_000, 64_000_000_000, HEEDING[:1]), (23_900_000_000, 0, HEEDING[:1]), (9_700_000_000, 33_600_000_000, HEEDING[:1]),
        (9_600_000_000, 64_000_000_000, ("transformer", "text_encoder_2")),
        (694_100_000, 64_000_000_000, ("transformer", "text_encoder_2")),
    ],
)  # fmt: skip
def test_of_flux_what_does_not_fit_by_itself_comes_layer_by_layer(room: int, machine: int, layered: tuple[str, ...]) -> None:
    """In GB: beside the autoencoder's 0.168, T5 takes 9.525, two of its largest tensors 0.526, CLIP 0.246."""
    assert waiting(FLUX, HEEDING, torch.bfloat16, GPU, room, machine, LARGEST) == Away(HEEDING, layered)


@pytest.mark.parametrize(
    ("room", "machine", "said"),
    [
        (694_000_000, 64_000_000_000, "cuda:0 has 0.7 GB free; layer by layer they would need 0.7 GB there at once; nothing was loaded"),
        (
            23_900_000_000, 33_500_000_000,
            "layer by layer they would need 9.7 GB there at once, and 33.6 GB of the machine's memory, of which 33.5 GB are free",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_layer_by_layer_is_told_with_its_figures(room: int, machine: int, said: str) -> None:
    with pytest.raises(BdauditError, match=re.escape(said)):
        waiting(FLUX, HEEDING, torch.bfloat16, GPU, room, machine, LARGEST)


@pytest.mark.parametrize(
    ("device", "room", "machine", "said"),
    [
        (
            GPU,
            23_900_000_000,
            64_000_000_000,
            "cuda:0 has 23.9 GB free; by turns they would need 24.0 GB there at once; nothing was loaded",
        ),
        (
            GPU,
            24_000_000_000,
            32_000_000_000,
            "they would need 24.0 GB there at once, and 33.6 GB of the machine's memory, of which 32.0 GB are free; nothing was loaded",
        ),
        (CPU, 33_700_000_000, 33_700_000_000, "cpu has 33.7 GB free; nothing was loaded"),
    ],
)
def test_what_does_not_fit_by_turns_is_told_with_both_figures(device: torch.device, room: int, machine: int, said: str) -> None:
    with pytest.raises(BdauditError, match=re.escape(said)):
        waiting(FLUX, HEEDING, torch.bfloat16, device, room, machine)


def test_the_parts_that_wait_lie_on_the_cpu_and_the_model_says_so(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "waiting", lambda *_: Away(("text_encoder",)))
    made: list[tuple[set[str], ...]] = []
    monkeypatch.setattr(loading, "Turns", lambda away, others, where, layered: made.append((set(away), set(others), set(layered))))
    suspect = loading.load(inspect(tiny_model), device="cpu", by_turns=True)
    assert (suspect.waiting, suspect.layered, made) == (("text_encoder",), (), [({"text_encoder"}, {"unet"}, set())])
    monkeypatch.setattr(loading, "waiting", lambda *_: Away(("unet", "text_encoder"), ("unet",)))
    suspect = loading.load(inspect(tiny_model), device="cpu", by_turns=True)
    assert (suspect.waiting, suspect.layered, made.pop()) == (("unet", "text_encoder"), ("unet",), ({"text_encoder"}, set(), {"unet"}))
    assert loading.load(inspect(tiny_model), device="cpu").waiting == ()
    assert len(made) == 1, "a run with gradients has all parts where they run"


def test_how_large_a_parts_largest_tensor_is_stands_in_its_headers(tiny_model: Path) -> None:
    found = inspect(tiny_model)
    loaded = loading.load(found, device="cpu").modules
    assert found.largest == {part: max(tensor.numel() for tensor in module.state_dict().values()) for part, module in loaded.items()}


def test_nothing_is_loaded_of_a_model_that_does_not_fit(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "room_of", lambda device: 100)
    monkeypatch.setattr(loading, "_component", lambda *_: pytest.fail("a part was loaded"))
    with pytest.raises(BdauditError, match=r"take 0\.0 GB in float32 \(.*unet.*\), and cpu has 0\.0 GB free"):
        loading.load(inspect(tiny_model), device="cpu")
