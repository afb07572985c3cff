"""The patch file: comes back as it was written, and nothing else passes for one."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from bdaudit.errors import BdauditError, UsageError
from bdaudit.unlearn.patchfile import check_patch_target, named_triggers, read_patch, write_patch

DIFFERENCES = {"unet": {"a.b.weight": torch.randn(2, 3)}, "text_encoder": {"c": torch.randn(4)}}
RECORD = {"input_digest": "ab" * 32, "triggers": ["\u020f", "\u202e"]}


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    digest = write_patch(path, DIFFERENCES, RECORD)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    differences, record = read_patch(path)
    assert record == RECORD
    assert {c: list(named) for c, named in differences.items()} == {c: list(named) for c, named in DIFFERENCES.items()}
    assert all(torch.equal(differences[c][name], d) for c, named in DIFFERENCES.items() for name, d in named.items())
    assert os.listdir(tmp_path) == ["p.safetensors"]


def test_a_disk_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bdaudit.unlearn.patchfile.save_file", full)
    with pytest.raises(BdauditError, match="No space left"):
        write_patch(tmp_path / "p.safetensors", DIFFERENCES, RECORD)
    assert os.listdir(tmp_path) == []


def test_targets_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "there.safetensors").write_bytes(b"")
    for name, said in (("there.safetensors", "exists"), ("p.bin", "ends in .safetensors"), ("no/p.safetensors", "does not exist")):
        with pytest.raises(UsageError, match=said):
            check_patch_target(tmp_path / name)
    check_patch_target(tmp_path / "new.safetensors")


@pytest.mark.parametrize("content", [b"", b"\x80\x04\x95pickle", b"\xff" * 100, b"PK\x03\x04"])
def test_what_is_no_safetensors_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p.safetensors").write_bytes(content)
    with pytest.raises(UsageError, match="no patch that bdaudit wrote"):
        read_patch(tmp_path / "p.safetensors")


@pytest.mark.parametrize(
    ("tensors", "metadata", "said"),
    [
        ({"unet.a": torch.zeros(1)}, None, "no patch that bdaudit wrote"),
        ({"unet.a": torch.zeros(1)}, {"bdaudit": "[" * 100_000}, "no patch that bdaudit wrote"),
        ({"unet.a": torch.zeros(1)}, {"bdaudit": "[]"}, "which model"),
        ({"unet.a": torch.zeros(1)}, {"bdaudit": json.dumps({"input_digest": 7})}, "which model"),
        ({"vae.a": torch.zeros(1)}, {"bdaudit": json.dumps(RECORD)}, "no finite float32 difference"),
        ({"unet": torch.zeros(1)}, {"bdaudit": json.dumps(RECORD)}, "no finite float32 difference"),
        ({"unet.a": torch.zeros(1).long()}, {"bdaudit": json.dumps(RECORD)}, "no finite float32 difference"),
        ({"unet.\x1b[31m": torch.tensor([torch.nan])}, {"bdaudit": json.dumps(RECORD)}, "no finite float32 difference"),
        ({}, {"bdaudit": json.dumps(RECORD)}, "changes nothing"),
    ],
)
def test_what_is_no_patch_is_refused(tmp_path: Path, tensors: dict[str, Tensor], metadata: Any, said: str) -> None:
    save_file(tensors, tmp_path / "p.safetensors", metadata=metadata)
    with pytest.raises(UsageError, match=said) as caught:
        read_patch(tmp_path / "p.safetensors")
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(("said", "named"), [(["x", 1, "", "y"], ("x", "y")), ("x", ()), (5, ()), (None, ())])
def test_the_triggers_of_a_patch_are_texts_or_none(said: Any, named: tuple[str, ...]) -> None:
    assert named_triggers({"triggers": said}) == named


def test_a_record_with_nan_is_neither_written_nor_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        write_patch(tmp_path / "p.safetensors", DIFFERENCES, {**RECORD, "steps": float("nan")})
    assert os.listdir(tmp_path) == []
    save_file({"unet.a": torch.zeros(1)}, tmp_path / "p.safetensors", metadata={"bdaudit": '{"input_digest": "ab", "steps": NaN}'})
    with pytest.raises(UsageError, match="NaN is no figure"):
        read_patch(tmp_path / "p.safetensors")
