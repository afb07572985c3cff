"""What a scan keeps comes back, or is told as damage."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bdaudit.errors import UsageError
from bdaudit.kept_state import State
from bdaudit.measure.signals import SIGNALS
from bdaudit.scan.cached import measured


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
