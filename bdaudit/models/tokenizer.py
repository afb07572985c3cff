"""A model's tokenizer without its weights: what it reads is inspected first, and loading it runs nothing of the model's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bdaudit.errors import BdauditError, first_line
from bdaudit.models.tokens import Tokenizer
from bdaudit.untrusted import rules, tokenizer_files
from bdaudit.untrusted.inspect import led_away
from bdaudit.untrusted.tree import Reader, walk


def open_tokenizer(directory: Path) -> Tokenizer:
    """The tokenizer of a model directory, its weights unread and unhashed.

    Raises:
        RefusedError: code, a link out of the directory, or a setting that a loader would follow elsewhere.
        BdauditError: damaged, or not there.
    """
    root = directory.resolve()
    tree = walk(root)
    found = rules.Findings(refused=led_away(tree))
    reader = Reader(root, tree.files)
    name = ""
    with found.catching():
        parts = rules.components(reader.json("model_index.json"), found)
        rules.check_code(tree.files, {*parts, *rules.REQUIRED, "scheduler"}, found)
        tokenizer_files.check(reader, 0, found)
        name = parts.get("tokenizer", ("", ""))[1]
    found.settle()
    return read_tokenizer(directory, name)


def read_tokenizer(directory: Path, name: str) -> Tokenizer:
    """An instance of transformers' class ``name`` from an inspected directory, its texts cut at the length that the text encoder has.

    Raises:
        BdauditError: the library cannot make one of it.
    """
    import transformers

    try:
        tokenizer: Any = getattr(transformers, name).from_pretrained(directory / "tokenizer", local_files_only=True)
        config = json.loads((directory / "text_encoder/config.json").read_text(encoding="utf-8"))
        tokenizer.model_max_length = min(int(tokenizer.model_max_length), int(config.get("max_position_embeddings", 77)))
    except Exception as error:  # tokenizers raise bare Exception on a damaged file; whatever it is, it is a load error
        raise BdauditError(f"tokenizer: {name} could not be loaded: {first_line(error)}") from error
    return tokenizer
