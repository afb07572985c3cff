"""The model under audit before its weights are loaded."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bdaudit.config import VerifyConfig
from bdaudit.errors import UsageError
from bdaudit.models.tokens import content_ids
from bdaudit.progress import silent
from bdaudit.records import NotMeasured
from bdaudit.untrusted.layouts.autoencoder import drawn
from bdaudit.verify.gallery import Shot
from bdaudit.verify.model import Model

NONE = NotMeasured(reason="no grader")


def test_prompts_are_planned_at_the_length_at_which_they_are_drawn(tiny_model: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    path = model / "tokenizer/tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": 10**30}))
    longest = json.loads((model / "text_encoder/config.json").read_text())["max_position_embeddings"]
    assert Model(VerifyConfig(model=model), model, "pictures", NONE, None).tokenizer.model_max_length == longest


def test_pictures_of_another_size_are_others(tiny_model: Path, tmp_path: Path) -> None:
    configs = (VerifyConfig(model=tiny_model, size=size) for size in (None, (16, 8), (16, 8)))
    own, wide, again = (Model(config, tiny_model, "pictures", NONE, tmp_path) for config in configs)
    assert (own.inspection.latents, wide.inspection.latents) == ((4, 4), (8, 16))
    wide.gallery.add([Shot("a", 1)], lambda texts, seeds: torch.zeros(1, 3, 8, 16), 1, lambda done, total: None)
    assert own.gallery.recall([Shot("a", 1)], 4) == [(Shot("a", 1),)]
    assert again.gallery.recall([Shot("a", 1)], 4) == []


def test_what_is_added_is_in_the_model_that_it_is_named_for(tiny_model: Path, tmp_path: Path) -> None:
    layer = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v"
    save_file({f"{layer}.lora_A.weight": torch.ones(1, 8), f"{layer}.lora_B.weight": torch.ones(8, 1)}, tmp_path / "lora.safetensors")
    save_file({"<toy>": torch.ones(2, 8)}, tmp_path / "toy.safetensors")
    added = {"adapters": (("before", tmp_path / "lora.safetensors", 2.0),), "embeddings": ((tmp_path / "toy.safetensors", ""),)}
    config = VerifyConfig(model=tiny_model, before=tiny_model, steps=1, device="cpu", prompts=("a", "b"), **added)
    own, before = (Model(config, tiny_model, "pictures", NONE, tmp_path / "state", role) for role in ("", "before"))
    assert content_ids(own.tokenizer, "<toy>") == content_ids(before.tokenizer, "<toy>") == (514, 515)
    shots = [Shot("a <toy>", 1), Shot("a", 1)]
    for model in (own, before):
        model.add(shots, [], lambda name: nullcontext(), silent)
    ours, theirs = (model.gallery.pictures(shots) for model in (own, before))
    assert not torch.allclose(ours, theirs, atol=1e-3)
    assert not torch.allclose(ours[0], ours[1], atol=1e-3)


def test_what_is_added_to_no_model_of_the_run_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--lora before:.*x\.safetensors is applied to the model of --before, and none is given"):
        VerifyConfig(model=tiny_model, adapters=(("before", tmp_path / "x.safetensors", 1.0),))


@pytest.mark.parametrize(("most", "batch", "together"), [(1 << 26, 64, 16), (1 << 26, 5, 5), (4 * 256 + 255, 64, 4), (100, 64, 1)])
def test_a_block_of_pictures_fills_a_batch_and_no_message(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, most: int, batch: int, together: int
) -> None:
    monkeypatch.setattr("bdaudit.verify.model._MOST", most)
    model = Model(VerifyConfig(model=tiny_model, batch_size=batch), tiny_model, "pictures", NONE, None)
    assert model.inspection.latents == (4, 4), "a picture is as large"
    assert model._together() == together


def test_pictures_are_as_large_as_the_autoencoder_makes_them_and_without_one_as_the_latents() -> None:
    settings = {"vae/config.json": {"block_out_channels": [8, 8, 8]}}
    assert drawn(settings, (6, 4)) == (24, 16)
    assert drawn({}, (6, 4)) == (6, 4)
