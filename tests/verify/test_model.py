"""The model under audit before its weights are loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from bdaudit.config import VerifyConfig
from bdaudit.verify.model import Model


def test_prompts_are_planned_at_the_length_at_which_they_are_drawn(tiny_model: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    path = model / "tokenizer/tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": 10**30}))
    longest = json.loads((model / "text_encoder/config.json").read_text())["max_position_embeddings"]
    assert Model(VerifyConfig(model=model), model).tokenizer.model_max_length == longest
