"""What fits is loaded, what does not is told by part, before anything is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bdaudit.errors import BdauditError
from bdaudit.models import load as loading
from bdaudit.models.memory import check_fits, room_of
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


def test_nothing_is_loaded_of_a_model_that_does_not_fit(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "room_of", lambda device: 100)
    monkeypatch.setattr(loading, "_component", lambda *_: pytest.fail("a part was loaded"))
    with pytest.raises(BdauditError, match=r"take 0\.0 GB in float32 \(.*unet.*\), and cpu has 0\.0 GB free"):
        loading.load(inspect(tiny_model), device="cpu")
