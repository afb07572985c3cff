"""`unlearn --from-patch` on the small model: a patch fits one model alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from bdaudit.config import ApplyConfig
from bdaudit.errors import BdauditError, ExitCode, UsageError
from bdaudit.unlearn.patchfile import read_patch, write_patch
from bdaudit.unlearn.run import run_unlearn
from bdaudit.untrusted.inspect import inspect

WEIGHTS = {part: f"{part}/{name}.safetensors" for part, name in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model"))}


def test_a_patch_of_another_model_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    patch = tmp_path / "repair.safetensors"
    write_patch(patch, {"unet": {"conv_out.bias": torch.zeros(4)}}, {"input_digest": "ab" * 32})
    with pytest.raises(UsageError, match="fits the very model"):
        run_unlearn(ApplyConfig(model=tiny_model, from_patch=patch, out=tmp_path / "out"))
    assert os.listdir(tmp_path) == ["repair.safetensors"]


def test_a_file_exchanged_while_a_finished_patch_is_read_does_not_get_into_the_result(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    write_patch(tmp_path / "p.safetensors", {"unet": {"conv_out.bias": torch.ones(4)}}, {"input_digest": inspect(model).digest})

    def exchanged(path: Path, digest: str, components: Sequence[str]) -> Any:
        (model / WEIGHTS["text_encoder"]).write_bytes((model / WEIGHTS["unet"]).read_bytes())
        return read_patch(path, digest, components)

    monkeypatch.setattr("bdaudit.unlearn.apply.read_patch", exchanged)
    with pytest.raises(BdauditError, match=r"text_encoder/model\.safetensors is not the file any more that was inspected") as raised:
        run_unlearn(ApplyConfig(model=model, from_patch=tmp_path / "p.safetensors", out=tmp_path / "out"))
    assert raised.value.code == ExitCode.ERROR
    assert sorted(os.listdir(tmp_path)) == ["model", "p.safetensors"]
