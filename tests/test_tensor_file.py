"""Tensors come out as safetensors' own reader has them; what is no whole file is an error before a tensor is read."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from bdaudit.errors import BdauditError, RefusedError, UsageError
from bdaudit.tensor_file import DTYPES, open_tensors
from bdaudit.untrusted.safetensors_header import DTYPE_BYTES


def held(path: Path) -> dict[str, torch.Tensor]:
    """One tensor of every type, a scalar among them, in a file with metadata."""
    numbers = torch.randn(3, 4) * 8
    tensors = {name: numbers.abs().to(dtype) if dtype not in (torch.bool,) else numbers > 0 for name, dtype in DTYPES.items()}
    save_file({**tensors, "scalar": torch.tensor(2.5)}, path, metadata={"a": "b"})
    return load_file(path)


def test_every_type_that_a_header_may_name_is_read_as_the_library_reads_it(tmp_path: Path) -> None:
    theirs = held(tmp_path / "x.safetensors")
    with open_tensors(tmp_path / "x.safetensors", "it") as file:
        ours, digest = file.load()
        assert file.header.metadata == {"a": "b"}
        assert file.size == (tmp_path / "x.safetensors").stat().st_size
    assert set(DTYPES) == set(DTYPE_BYTES)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert (tensor.dtype, tensor.shape) == (theirs[name].dtype, theirs[name].shape)
        assert tensor.contiguous().view(-1).view(torch.uint8).equal(theirs[name].contiguous().view(-1).view(torch.uint8))
    assert digest == hashlib.sha256((tmp_path / "x.safetensors").read_bytes()).hexdigest()


def test_a_file_without_tensors_is_read(tmp_path: Path) -> None:
    save_file({}, tmp_path / "x.safetensors")
    with open_tensors(tmp_path / "x.safetensors", "it") as file:
        assert file.load() == ({}, hashlib.sha256((tmp_path / "x.safetensors").read_bytes()).hexdigest())


@pytest.mark.parametrize("change", ["cut", "longer", "overlap", "twice", "deep", "text"])
def test_what_is_no_whole_file_is_an_error_of_the_kind_asked_for(change: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    held(path)
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = data[8:end]
    moved = header.replace(b'"shape":[3,4]', b'"shape":[4,3]', 1).replace(b'"data_offsets":[0,', b'"data_offsets":[1,')
    changed = {
        "cut": data[:-1],
        "longer": data + b"\0",
        "overlap": data[:8] + moved + data[end:],
        "twice": data[:8] + header.replace(b'"U8"', b'"I8"').replace(b'"I64":{', b'"F64":{') + data[end:],
        "deep": (100_000).to_bytes(8, "little") + b"{" * 100_000,
        "text": b"no tensors",
    }[change]  # fmt: skip
    path.write_bytes(changed)
    with pytest.raises(UsageError, match=r"^--flag x"), open_tensors(path, "--flag x"):
        pytest.fail("it was opened")
    with pytest.raises(BdauditError) as caught, open_tensors(path, "x", error=BdauditError):
        pytest.fail("it was opened")
    assert type(caught.value) is BdauditError


def test_a_pickle_is_refused_and_a_pipe_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(RefusedError, match="a pickle or an archive"), open_tensors(tmp_path / "x.safetensors", "it"):
        pytest.fail("it was opened")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="is a pipe"), open_tensors(tmp_path / "pipe", "it"):
        pytest.fail("it was opened")


def test_a_file_that_becomes_shorter_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(1 << 20)}, path)
    with open_tensors(path, "it") as file:
        os.truncate(path, 1 << 12)
        with pytest.raises(BdauditError, match="became shorter"):
            file.load()


def test_an_exchanged_file_is_not_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(2)}, path)
    with open_tensors(path, "it") as file:
        save_file({"a": torch.ones(2)}, tmp_path / "other")
        (tmp_path / "other").replace(path)
        assert file.load()[0]["a"].equal(torch.zeros(2))
    with safe_open(path, "pt") as other:
        assert other.get_tensor("a").equal(torch.ones(2))


def test_names_that_are_no_text_are_an_error(tmp_path: Path) -> None:
    header = json.dumps({"\ud800": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}).encode()
    (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header + b"\0")
    with open_tensors(tmp_path / "x", "it") as file:
        assert list(file.load()[0]) == ["\ud800"]


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="the system has no such file")
def test_a_file_that_opens_and_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").symlink_to("/proc/self/mem")
    with pytest.raises(UsageError, match=r"^--x f cannot be read: Input/output error$"), open_tensors(tmp_path / "x.safetensors", "--x f"):
        pass
