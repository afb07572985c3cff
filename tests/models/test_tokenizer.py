"""A tokenizer is opened by itself, under the same rules as the whole model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bdaudit.errors import BdauditError, RefusedError
from bdaudit.models.suspect import Suspect
from bdaudit.models.tokenizer import open_tokenizer


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_model, tmp_path / "model")


def test_it_encodes_as_the_loaded_models(copy: Path, tiny_suspect: Suspect) -> None:
    for path in copy.rglob("*.safetensors"):
        path.write_bytes(b"")  # weights are not looked at
    tokenizer = open_tokenizer(copy)
    assert tokenizer("a phȏto\u200b").input_ids == tiny_suspect.tokenizer("a phȏto\u200b").input_ids
    assert tokenizer.model_max_length == tiny_suspect.tokenizer.model_max_length


def test_code_is_refused(copy: Path) -> None:
    path = copy / "tokenizer/tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": {"AutoTokenizer": ["evil.py", None]}}))
    with pytest.raises((RefusedError, BdauditError), match="auto_map"):
        open_tokenizer(copy)


def test_a_link_out_of_the_directory_is_refused(copy: Path, tmp_path: Path) -> None:
    (copy / "tokenizer/tokenizer.json").rename(tmp_path / "tokenizer.json")
    (copy / "tokenizer/tokenizer.json").symlink_to(tmp_path / "tokenizer.json")
    with pytest.raises(RefusedError, match="leads out of the directory"):
        open_tokenizer(copy)


def test_a_damaged_one_is_an_error(copy: Path) -> None:
    (copy / "tokenizer/vocab.json").write_text("{")
    with pytest.raises(BdauditError, match="not valid JSON"):
        open_tokenizer(copy)
