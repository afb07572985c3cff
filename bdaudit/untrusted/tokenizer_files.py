"""What a tokenizer's files may hold: bounded vocabularies, no pattern that can run for ever, nothing read from elsewhere."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from bdaudit.errors import BdauditError
from bdaudit.untrusted import rules
from bdaudit.untrusted.tree import Reader, shown

LIMITS = (8 << 20, 600_000)
"""Bytes, and commas plus brackets, of one file; CLIP's ``tokenizer.json`` has 3.6 MB."""
NAMES = (
    *("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json", "chat_template.jinja"),
)

_LONGEST = 1000
"""Characters of one token; CLIP's longest has 29. Libraries split each token in every way to derive merges."""
_ADDED = 4096
"""Tokens beyond the vocabulary; each is added by itself."""
_TEMPLATES = (64, 1 << 20)
"""Chat templates, and the bytes of all of them; a CLIP tokenizer has none, and none is rendered."""


def check(reader: Reader, rows: int, found: rules.Findings) -> None:
    """Check what a loader reads of ``tokenizer/``; ``rows`` is how many ids the text encoder embeds, 0 where that is not known."""
    held = {name: f"tokenizer/{name}" for name in NAMES if f"tokenizer/{name}" in reader.files}
    if "tokenizer.json" not in held and not {"vocab.json", "merges.txt"} <= set(held):
        found.damaged.append("tokenizer: expected vocab.json and merges.txt, or tokenizer.json")
    vocabularies = []
    for name, path in held.items():
        with found.catching():
            vocabulary = _file(reader, name, path, rows)
            vocabularies += [vocabulary] if vocabulary else []
    with found.catching():
        _read_templates(reader)
    if len(vocabularies) == 2 and vocabularies[0] != vocabularies[1]:
        found.notes.append("tokenizer: vocab.json and tokenizer.json differ; which one is read depends on the version of transformers")


def _read_templates(reader: Reader) -> None:
    paths = [path for path in reader.files if path.startswith("tokenizer/additional_chat_templates/")]
    most, room = _TEMPLATES
    if len(paths) > most or sum(reader.files[path] for path in paths) > room:
        raise BdauditError(f"tokenizer: {len(paths)} chat templates; no text encoder of Stable Diffusion needs them")
    for path in paths:
        reader.content(path, room)


def _file(reader: Reader, name: str, path: str, rows: int) -> dict[str, int]:
    """Check one file; its vocabulary, empty where it has none."""
    if not name.endswith(".json"):
        try:
            reader.content(path, LIMITS[0]).decode("utf-8")
        except UnicodeDecodeError as error:
            raise BdauditError(f"{path} is not UTF-8 (byte {error.start})") from error
        return {}
    content = reader.json(path, LIMITS)
    if name in ("tokenizer_config.json", "special_tokens_map.json"):
        rules.check_config(content, path)
        _check_settings(content, path, rows)
    elif name == "vocab.json":
        return check_vocabulary(content, path, rows)
    elif name == "added_tokens.json" and content:
        _few(content, path)
        check_vocabulary(content, path, rows)
    elif name == "tokenizer.json":
        return _check_serialised(content, path, rows)
    return {}


def _check_settings(content: dict[str, Any], path: str, rows: int) -> None:
    for name in ("model_max_length", "max_len"):
        length = content.get(name)
        if length is not None and (isinstance(length, bool) or not isinstance(length, int | float) or not 3 <= length < math.inf):
            raise BdauditError(f"{path}: {name} is {shown(length)}; expected a number of tokens, at least 3")
    added = content.get("added_tokens_decoder") or {}
    if not isinstance(added, dict) or not all(key.isascii() and key.isdecimal() for key in added):
        raise BdauditError(f"{path}: added_tokens_decoder is not a map of ids to tokens")
    _few(added, path)
    for key in added:
        _check_id(int(key[:20]), path, rows)


def _check_serialised(content: dict[str, Any], path: str, rows: int) -> dict[str, int]:
    model = content.get("model")
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
        raise BdauditError(f"{path}: expected a BPE model, as CLIP's")
    if not isinstance(model.get("merges"), list):
        raise BdauditError(f"{path}: the BPE model has no list of merges")
    for pattern in _patterns({key: value for key, value in content.items() if key != "model"}):
        if _can_run_long(pattern):
            raise BdauditError(f"{path}: the pattern {shown(pattern)} is none of CLIP's, and could run for ever on a text")
    added = content.get("added_tokens") or []
    _few(added, path)
    for entry in added if isinstance(added, list) else []:
        number = entry.get("id") if isinstance(entry, dict) else None
        if type(number) is not int:
            raise BdauditError(f"{path}: an added token without an id")
        _check_id(number, path, rows)
    return check_vocabulary(model.get("vocab"), path, rows)


def _patterns(value: Any) -> Iterator[Any]:
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            yield from (inner for key, inner in item.items() if key == "Regex")
            todo += item.values()
        elif isinstance(item, list):
            todo += item


def _can_run_long(pattern: object) -> bool:
    """Whether a regular expression may backtrack: a group, a reference, or two repetitions in one branch. None of CLIP's has any."""
    if not isinstance(pattern, str) or len(pattern) > _LONGEST:
        return True
    plain = re.sub(r"\\[pP]\{\w+\}|\\[^1-9kgpP]|\[(?:\\.|[^\]\\])*\]", "x", pattern)
    branches = plain.split("|")
    return re.search(r"[()\\]", plain) is not None or any(len(re.findall(r"[*+?{]", branch)) > 1 for branch in branches)


def check_vocabulary(vocabulary: Any, where: str, embeddings: int) -> dict[str, int]:
    """Token → id, each id once and below the text encoder's ``embeddings`` rows, no token longer than 1,000 characters.

    Raises:
        BdauditError: anything else.
    """
    if not isinstance(vocabulary, dict) or not vocabulary or not all(type(v) is int and v >= 0 for v in vocabulary.values()):
        raise BdauditError(f"{where}: the vocabulary is not a map of tokens to ids")
    if len(set(vocabulary.values())) != len(vocabulary):
        raise BdauditError(f"{where}: two tokens share an id")
    if max(map(len, vocabulary)) > _LONGEST:
        raise BdauditError(f"{where}: a token of {max(map(len, vocabulary)):,} characters; no vocabulary needs that")
    _check_id(max(vocabulary.values()), where, embeddings)
    return vocabulary


def _check_id(number: int, where: str, embeddings: int) -> None:
    if embeddings and not 0 <= number < embeddings:
        raise BdauditError(f"{where}: id {shown(number)} has no row among the text encoder's {embeddings} embeddings")


def _few(added: Any, where: str) -> None:
    if not isinstance(added, dict | list):
        raise BdauditError(f"{where}: the added tokens are neither a map nor a list")
    if len(added) > _ADDED:
        raise BdauditError(f"{where}: {len(added):,} added tokens; at most {_ADDED:,} are read")
