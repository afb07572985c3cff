"""What a program hands over becomes the fields of a config, and which of it is read."""

from __future__ import annotations

from pathlib import Path

from bdaudit.api.values import settings_of
from bdaudit.config import VerifyConfig


def test_files_that_are_read_are_told_and_nothing_else_is(tmp_path: Path) -> None:
    picture = tmp_path / "target.png"
    picture.touch()
    given = {"target_image": f"{picture}@1,2", "device": "cpu", "n": 20, "triggers": ["x"], "state": tmp_path / "state", "before": tmp_path}
    settings, opened = settings_of((VerifyConfig,), given)
    assert opened == [("--target_image", picture)]
    assert (settings["device"], settings["n"], settings["before"]) == ("cpu", 20, tmp_path)
