"""What a scan keeps belongs to one precision and device, by what ``auto`` comes to."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bdaudit.checkpoints import State
from bdaudit.config import ScanConfig
from bdaudit.errors import UsageError
from bdaudit.measure.signals import SIGNALS
from bdaudit.scan.cached import measured, open_state


def test_figures_of_two_precisions_do_not_mix(tmp_path: Path) -> None:
    def opened(dtype: str) -> None:
        asked = ScanConfig(model=tmp_path / "model", state=tmp_path / "state", device="cpu", dtype=dtype)  # type: ignore[arg-type]
        open_state(asked, "digest").write_json("kept", [1])

    opened("auto")
    opened("float32")
    with pytest.raises(UsageError):
        opened("bfloat16")


@pytest.mark.parametrize("kept", [5, [5, True], [{}, True], [{"prefix": {}}, True], [{"prefix": dict.fromkeys(SIGNALS, "high")}, True]])
def test_a_measurement_that_is_none_is_told_as_damage(tmp_path: Path, kept: Any) -> None:
    state = State(tmp_path / "state", "key")
    key = f"full-{hashlib.sha256(b'cf').hexdigest()[:24]}"
    context: Any = SimpleNamespace(state=state)  # the model is not asked
    state.write_json(key, [{"prefix": dict.fromkeys(SIGNALS, 1.5)}, False])
    assert list(measured(context, "full", ["cf"])) == [("cf", {"prefix": dict.fromkeys(SIGNALS, 1.5)}, False)]
    state.write_json(key, kept)
    with pytest.raises(UsageError, match=r"is damaged .*; remove the folder to begin anew"):
        list(measured(context, "full", ["cf"]))
