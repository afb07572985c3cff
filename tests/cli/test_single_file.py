"""A checkpoint in one file on the command line: what is typed, where its result goes, what a dry run says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bdaudit.cli import main
from tests.untrusted import one_file

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def typed(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Exit code, stdout and stderr of a command in ``tmp_path``."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", ["bdaudit", *map(str, arguments)])
        return main(), *capsys.readouterr()

    return run


@pytest.fixture
def file(tiny_model: Path, tmp_path: Path) -> Path:
    return one_file.write(tiny_model, tmp_path / "model.safetensors")


def plan(out: str) -> dict[str, Any]:
    return dict(json.loads(out))


def test_a_dry_run_names_the_file_and_where_its_repair_goes(typed: Run, file: Path, tiny_model: Path) -> None:
    code, out, _ = typed("unlearn", "model.safetensors", "--config", tiny_model, "--trigger", "cat", "--dry-run", "--json")
    assert code == 0
    assert [line for line in plan(out)["loaded"] if line.startswith("model.safetensors, ")]
    assert "model-unlearned/" in plan(out)["written"]
    assert sorted(path.name for path in file.parent.iterdir()) == ["model.safetensors"]


def test_parts_are_named_and_opened(typed: Run, file: Path, tiny_model: Path) -> None:
    vae = tiny_model / "vae/diffusion_pytorch_model.safetensors"
    code, out, _ = typed("scan", file, "--config", tiny_model, "--part", f"vae={vae}", "--dry-run", "--json")
    assert code == 0
    assert [line for line in plan(out)["loaded"] if line.startswith("vae/diffusion_pytorch_model.safetensors, ")]


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        ((), 4, "has the sizes of no published model"),
        (("--part", "vae"), 2, "expected NAME=FILE"),
        (("--part", "before:vae=model.safetensors"), 2, "of the model of --before, and none is given"),
        (("--config", "model.safetensors"), 2, "is a file"),
        (("--variant", "ema"), 2, "no whole moving average"),
    ],
)
def test_what_is_wrong_is_said(typed: Run, file: Path, tiny_model: Path, flags: tuple[str, ...], code: int, said: str) -> None:
    settings = ("--config", tiny_model) if "--config" not in flags and flags else ()
    got, _, err = typed("scan", file, *settings, *flags, "--dry-run")
    assert got == code
    assert said in err


def test_a_pickle_is_refused_whatever_leave_is_given(typed: Run, file: Path, tiny_model: Path) -> None:
    file.rename(file.with_name("model.ckpt"))
    code, _, err = typed("scan", "model.ckpt", "--allow-pickle", "--config", tiny_model, "--dry-run")
    assert code == 5
    assert "a checkpoint as a pickle is never opened" in err


def test_nothing_is_written_over_the_file(typed: Run, file: Path, tiny_model: Path) -> None:
    code, _, err = typed("scan", file, "--config", tiny_model, "--report", file.with_suffix(".json"), "--state", file, "--dry-run")
    assert code == 2
    assert "model.safetensors" in err
