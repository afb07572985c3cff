"""Which file an adapter is, and the settings beside it: bounded, regular, and no link."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bdaudit.errors import BdauditError, RefusedError, UsageError
from bdaudit.models.adapter_file import adapter_file, is_adapter_directory, settings_beside
from tests.untrusted.cached import lay_out, relink


def test_a_directory_stands_for_the_one_adapter_in_it(tmp_path: Path) -> None:
    for name in ("adapter_model.safetensors", "pytorch_lora_weights.safetensors"):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        assert not is_adapter_directory(folder)
        with pytest.raises(UsageError, match="holds none of"):
            adapter_file(folder)
        (folder / name).write_bytes(b"")
        assert adapter_file(folder) == folder / name == adapter_file(folder / name)
        assert is_adapter_directory(folder)
        (folder / "model_index.json").write_bytes(b"{}")
        assert not is_adapter_directory(folder), "a pipeline with its adapter inside is a model"
    (folder / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(UsageError, match="holds both of"):
        adapter_file(folder)


def test_settings_beside_are_read_with_their_digest(tmp_path: Path) -> None:
    weights = tmp_path / "adapter_model.safetensors"
    assert settings_beside(weights) is None
    (tmp_path / "adapter_config.json").write_text('{"r": 4}')
    found = settings_beside(weights)
    assert found is not None
    assert (found[0], found[1].bytes, len(found[1].sha256)) == ({"r": 4}, 8, 64)


def test_hostile_settings_beside(tmp_path: Path) -> None:
    weights, beside = tmp_path / "adapter_model.safetensors", tmp_path / "adapter_config.json"
    (tmp_path / "elsewhere.json").write_text("{}")
    beside.symlink_to("elsewhere.json")
    with pytest.raises(RefusedError, match="is a link"):
        settings_beside(weights)
    beside.unlink()
    beside.symlink_to("nowhere")
    with pytest.raises(RefusedError, match="is a link"):
        settings_beside(weights)
    beside.unlink()
    os.mkfifo(beside)
    with pytest.raises(RefusedError, match="no regular file"):
        settings_beside(weights)
    beside.unlink()
    for content in (
        b"[]",
        b"{",
        b"\xff",
        b'{"r": ' + b"9" * 5000 + b"}",
        b'{"a":' * 1000 + b"1" + b"}" * 1000,
        b" " * (2 << 20),
        b"\x80\x04.",
    ):
        beside.write_bytes(content)
        with pytest.raises(BdauditError):
            settings_beside(weights)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "pytorch_lora_weights.safetensors"])
def test_weights_in_a_directory_are_no_link_out_of_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "outside.safetensors").write_bytes(b"secret")
    weights = tmp_path / "adapter" / name
    for target in ("../outside.safetensors", str(tmp_path / "outside.safetensors"), "/proc/self/mem"):
        weights.symlink_to(target)
        with pytest.raises(RefusedError, match=r"is a link that leads out of the directory; copy the adapter"):
            adapter_file(tmp_path / "adapter")
        assert adapter_file(weights) == weights, "who names a file means what lies there"
        weights.unlink()
    (tmp_path / "adapter/inside.safetensors").write_bytes(b"")
    weights.symlink_to("inside.safetensors")
    assert adapter_file(tmp_path / "adapter") == weights


def test_weights_in_the_hubs_cache_are_the_link_that_it_makes(tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter/adapter_model.safetensors").write_bytes(b"weights")
    snapshot = lay_out(tmp_path / "adapter", tmp_path / "hub")
    weights = snapshot / "adapter_model.safetensors"
    assert adapter_file(snapshot) == weights
    relink(weights, f"./{os.readlink(weights)}")
    with pytest.raises(RefusedError, match="leads elsewhere than one step to blobs/ and a digest"):
        adapter_file(snapshot)
