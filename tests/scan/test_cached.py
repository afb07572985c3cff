"""What a scan keeps belongs to one precision and device, by what ``auto`` comes to."""

from __future__ import annotations

from pathlib import Path

import pytest

from bdaudit.config import ScanConfig
from bdaudit.errors import UsageError
from bdaudit.scan.cached import open_state


def test_figures_of_two_precisions_do_not_mix(tmp_path: Path) -> None:
    def opened(dtype: str) -> None:
        asked = ScanConfig(model=tmp_path / "model", state=tmp_path / "state", device="cpu", dtype=dtype)  # type: ignore[arg-type]
        open_state(asked, "digest").write_json("kept", [1])

    opened("auto")
    opened("float32")
    with pytest.raises(UsageError):
        opened("bfloat16")
