"""The folder that a library loads from holds what was checked, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bdaudit.models.staging import staged


@pytest.fixture
def model(tmp_path: Path) -> Path:
    for name in ("config.json", "weights", "left.py", "templates/a"):
        path = tmp_path / "unet" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    return tmp_path


def test_settings_are_written_anew_and_the_rest_are_links(model: Path) -> None:
    loaded = ("unet/config.json", "unet/weights", "unet/templates/a", "vae/config.json")
    with staged(model, "unet", loaded, {"unet/config.json": {"a": 1}}) as folder:
        assert {path.name for path in folder.iterdir()} == {"config.json", "weights"}
        assert json.loads((folder / "config.json").read_text()) == {"a": 1}
        assert not (folder / "config.json").is_symlink()
        assert (folder / "weights").resolve() == (model / "unet/weights").resolve()
    assert not folder.exists()
    assert (model / "unet/weights").read_text() == "weights"
    assert (model / "unet/config.json").read_text() == "config.json"


def test_it_is_gone_after_an_error(model: Path) -> None:
    with pytest.raises(ValueError, match="x"), staged(model, "unet", ("unet/weights",), {}) as folder:
        raise ValueError("x")
    assert not folder.exists()
