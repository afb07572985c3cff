"""Inception is used only with torch-fidelity installed and the one known file in place."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bdaudit.records import NotMeasured
from bdaudit.verify import inception

NAME = "weights-inception-2015-12-05-6726825d.pth"


def reason(folder: Path) -> str:
    found = inception.load_inception(torch.device("cpu"), folder)
    assert isinstance(found, NotMeasured)
    return found.reason


def test_without_torch_fidelity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inception, "find_spec", lambda name: None)
    assert reason(tmp_path) == "torch-fidelity is not installed"


def test_without_the_file_and_with_another_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inception, "find_spec", lambda name: object())
    assert NAME in reason(tmp_path)
    (tmp_path / NAME).write_bytes(b"cposix\nsystem\n(S'touch owned'\ntR.")
    assert "SHA-256 differs" in reason(tmp_path)
    assert not Path("owned").exists()
