"""The model under audit before its weights are loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch

from bdaudit.config import VerifyConfig
from bdaudit.records import NotMeasured
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
    assert own.gallery.recall([Shot("a", 1)]) == [Shot("a", 1)]
    assert again.gallery.recall([Shot("a", 1)]) == []
