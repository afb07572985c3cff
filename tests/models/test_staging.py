"""The folder that a library loads from holds what was checked, and nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

import pytest

from bdaudit.errors import BdauditError
from bdaudit.models.staging import staged

WAITING = """
import sys, time
from pathlib import Path
from bdaudit.cli import _stop_as_ctrl_c
from bdaudit.models.staging import staged
_stop_as_ctrl_c()
with staged("unet", {"unet/weights": Path(sys.argv[1]) / "unet/weights"}, {}) as folder:
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    for name in ("config.json", "weights", "left.py", "templates/a"):
        path = tmp_path / "unet" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    return tmp_path


def lying(model: Path, *names: str) -> dict[str, Path | bytes]:
    return {name: model / name for name in names}


def test_what_lies_nowhere_is_written() -> None:
    with staged("unet", {"unet/merges.txt": b"a b", "unet/config.json": b"{}"}, {"unet/config.json": {"a": 1}}) as folder:
        assert (folder / "merges.txt").read_bytes() == b"a b"
        assert json.loads((folder / "config.json").read_text()) == {"a": 1}


def test_settings_are_written_anew_and_the_rest_are_links(model: Path) -> None:
    loaded = ("unet/config.json", "unet/weights", "unet/templates/a", "vae/config.json")
    with staged("unet", lying(model, *loaded), {"unet/config.json": {"a": 1}}) as folder:
        assert {path.name for path in folder.iterdir()} == {"config.json", "weights"}
        assert json.loads((folder / "config.json").read_text()) == {"a": 1}
        assert not (folder / "config.json").is_symlink()
        assert (folder / "weights").resolve() == (model / "unet/weights").resolve()
    assert not folder.exists()
    assert (model / "unet/weights").read_text() == "weights"
    assert (model / "unet/config.json").read_text() == "config.json"


def test_it_is_gone_after_an_error(model: Path) -> None:
    with pytest.raises(ValueError, match="x"), staged("unet", lying(model, "unet/weights"), {}) as folder:
        raise ValueError("x")
    assert not folder.exists()


def test_where_links_cannot_be_made_there_is_a_copy(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> NoReturn:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refused)
    with staged("unet", lying(model, "unet/config.json", "unet/weights"), {"unet/config.json": {}}) as folder:
        assert not (folder / "weights").is_symlink()
        assert (folder / "weights").read_text() == "weights"


def test_no_place_for_it_is_an_error_that_names_tmpdir(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(model / "gone"))
    with (
        pytest.raises(BdauditError, match=r"that unet is loaded from cannot be made: No such .*; set TMPDIR") as caught,
        staged("unet", {}, {}),
    ):
        pass
    assert caught.value.code == 3


def test_what_happens_inside_is_no_error_of_its_making(model: Path) -> None:
    with pytest.raises(FileNotFoundError), staged("unet", lying(model, "unet/weights"), {}) as folder:
        (folder / "other").read_text()


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGHUP])
def test_it_is_gone_after_a_signal(kind: signal.Signals, model: Path, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    environment = os.environ | {"TMPDIR": str(tmp_path / "tmp")}
    command = [sys.executable, "-c", WAITING, str(model)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as run:
        assert run.stdout is not None
        folder = Path(run.stdout.readline().strip())
        assert (folder / "weights").is_symlink()
        run.send_signal(kind)
        run.wait(30)
    assert list((tmp_path / "tmp").iterdir()) == []
