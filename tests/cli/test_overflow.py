"""A model whose weights are finite and whose predictions are not: never a pass, whatever is asked of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from tests import small


@pytest.fixture
def overflowing(tiny_model: Path, tmp_path: Path) -> Path:
    """The last layer's weights are so large that what it gives is infinite or no number."""
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    path = model / "unet/diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["conv_out.weight"] = tensors["conv_out.weight"] * 0 + 3e38
    save_file(tensors, path, metadata={"format": "pt"})
    return model


@pytest.mark.parametrize(
    "arguments",
    [
        ("scan", "--candidates", "TOKENS", "--effort", "low"),
        ("unlearn", "--trigger", small.LONG_TRIGGER, "--steps", 2, "--n-prompts", 2),
        ("verify", "--trigger", small.LONG_TRIGGER, "--n", 4, "--steps", 2, "--target-text", "a cat"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_what_cannot_be_measured_is_never_a_pass(bdaudit: Any, overflowing: Path, tmp_path: Path, arguments: tuple[Any, ...]) -> None:
    (tmp_path / "TOKENS").write_text("cf\n")
    (tmp_path / "prompts.txt").write_text("\n".join(small.PROMPTS))
    verb, *rest = (tmp_path / part if part == "TOKENS" else part for part in arguments)
    shared = ("--prompts", tmp_path / "prompts.txt", "--device", "cpu", "--quiet", "--report", tmp_path / "r.json")
    ended = bdaudit(verb, overflowing, *shared, *rest)
    assert ended.code in (3, 4), ended.last
    assert not (tmp_path / "model-unlearned").exists()
