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

from bdaudit.errors import BdauditError, RefusedError, UsageError
from bdaudit.unlearn.patchfile import named_triggers, read_patch, write_patch

DIFFERENCES = {"unet": {"a.b.weight": torch.randn(2, 3)}, "text_encoder": {"c": torch.randn(4)}}
PARTS = ("unet", "text_encoder")
RECORD: dict[str, Any] = {"input_digest": "ab" * 32, "triggers": ["\u020f", "\u202e"]}


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    digest = write_patch(path, DIFFERENCES, RECORD)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    differences, record = read_patch(path, RECORD["input_digest"], PARTS)
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


@pytest.mark.parametrize(("content", "kind", "said"), [
    (b"", UsageError, "no patch that bdaudit wrote"), (b"\xff" * 100, UsageError, "no patch that bdaudit wrote"),
    (b"\x80\x04\x95pickle", RefusedError, "is a pickle"), (b"PK\x03\x04", RefusedError, "an archive"),
])  # fmt: skip
def test_what_is_no_safetensors_is_refused(tmp_path: Path, content: bytes, kind: type[BdauditError], said: str) -> None:
    (tmp_path / "p.safetensors").write_bytes(content)
    with pytest.raises(kind, match=said):
        read_patch(tmp_path / "p.safetensors", RECORD["input_digest"], PARTS)


@pytest.mark.parametrize(
    ("tensors", "metadata", "said"),
    [
        ({"unet.a": torch.zeros(1)}, None, "no patch that bdaudit wrote"),
        ({"unet.a": torch.zeros(1)}, {"bdaudit": "[" * 100_000}, "JSON nested too deep"),
        ({"unet.a": torch.zeros(1)}, {"bdaudit": "[]"}, "which model"),
        ({"unet.a": torch.zeros(1)}, {"bdaudit": json.dumps({"input_digest": 7})}, "which model"),
        ({"vae.a": torch.zeros(1)}, {"bdaudit": json.dumps(RECORD)}, "no float32 difference"),
        ({"unet": torch.zeros(1)}, {"bdaudit": json.dumps(RECORD)}, "no float32 difference"),
        ({"unet.a": torch.zeros(1).long()}, {"bdaudit": json.dumps(RECORD)}, "no float32 difference"),
        ({"unet.\x1b[31m": torch.tensor([torch.nan])}, {"bdaudit": json.dumps(RECORD)}, "holds NaN or infinity"),
        ({}, {"bdaudit": json.dumps(RECORD)}, "changes nothing"),
    ],
)
def test_what_is_no_patch_is_refused(tmp_path: Path, tensors: dict[str, Tensor], metadata: Any, said: str) -> None:
    save_file(tensors, tmp_path / "p.safetensors", metadata=metadata)
    with pytest.raises(UsageError, match=said) as caught:
        read_patch(tmp_path / "p.safetensors", RECORD["input_digest"], PARTS)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(("said", "named"), [(["x", 1, "", "y"], ("x", "y")), ("x", ()), (5, ()), (None, ())])
def test_the_triggers_of_a_patch_are_texts_or_none(said: Any, named: tuple[str, ...]) -> None:
    assert named_triggers({"triggers": said}) == named


def test_the_model_that_it_is_for_is_looked_at_before_a_tensor_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_patch(tmp_path / "p.safetensors", DIFFERENCES, RECORD)
    monkeypatch.setattr("bdaudit.tensor_file.TensorFile.load", lambda _: pytest.fail("a tensor was read"))
    with pytest.raises(UsageError, match="was made for the model with digest 'abababababab', this one has cdcdcdcdcdcd"):
        read_patch(tmp_path / "p.safetensors", "cd" * 32, PARTS)


def test_a_patch_that_is_a_hole_or_a_pipe_ends_at_once(tmp_path: Path) -> None:
    n = 1 << 24
    header = json.dumps(
        {"__metadata__": {"bdaudit": json.dumps(RECORD)}, "unet.a": {"dtype": "F32", "shape": [n], "data_offsets": [0, 4 * n]}}
    )
    with (tmp_path / "hole.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header.encode())
        file.truncate(8 + len(header) + 4 * n)
    os.mkfifo(tmp_path / "pipe.safetensors")
    for name, said in (("hole", "is mostly a hole"), ("pipe", "is a pipe")):
        with pytest.raises(UsageError, match=said):
            read_patch(tmp_path / f"{name}.safetensors", RECORD["input_digest"], PARTS)


def test_a_record_with_nan_is_neither_written_nor_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        write_patch(tmp_path / "p.safetensors", DIFFERENCES, {**RECORD, "steps": float("nan")})
    assert os.listdir(tmp_path) == []
    save_file({"unet.a": torch.zeros(1)}, tmp_path / "p.safetensors", metadata={"bdaudit": '{"input_digest": "ab", "steps": NaN}'})
    with pytest.raises(UsageError, match="NaN is no figure"):
        read_patch(tmp_path / "p.safetensors", RECORD["input_digest"], PARTS)
