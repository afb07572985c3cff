"""What a pass costs is timed on shapes alone, where memory allows; whatever goes wrong is a reason, and no error."""

from __future__ import annotations

from pathlib import Path

import pytest

from bdaudit.models import timing
from bdaudit.models.timing import seconds_a_pass
from bdaudit.records import NotMeasured
from bdaudit.untrusted.inspect import inspect


def test_a_batch_of_random_weights_is_timed_and_no_weights_are_read(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = inspect(tiny_model)
    monkeypatch.setattr("safetensors.torch.load_file", None)
    each = seconds_a_pass(seen, "cpu", "float32", 2)
    assert isinstance(each, float)
    assert 0 < each < 10


def test_a_model_that_does_not_fit_is_not_built(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_free", lambda device: 1000)
    monkeypatch.setattr(timing, "TIMED", {name: (part, None) for name, (part, _) in timing.TIMED.items()})
    found = seconds_a_pass(inspect(tiny_model), "cpu", "float32", 2)
    assert isinstance(found, NotMeasured)
    assert found.reason.startswith("a timed batch needs about")


@pytest.mark.parametrize("device", ["cuda:99", "nonsense"])
def test_what_goes_wrong_is_a_reason(tiny_model: Path, device: str) -> None:
    assert isinstance(seconds_a_pass(inspect(tiny_model), device, "float32", 2), NotMeasured)
