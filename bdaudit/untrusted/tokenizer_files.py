"""What a tokenizer's files may hold: bounded vocabularies, no pattern that can run for ever, nothing read from elsewhere."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any

from bdaudit.errors import BdauditError, InconclusiveError
from bdaudit.untrusted import rules, templates
from bdaudit.untrusted.layouts.layout import Part, Vocabulary
from bdaudit.untrusted.settings import LONGEST_TOKEN, TOKEN, check_settings, token_text
from bdaudit.untrusted.tokenizer_rewrites import check_rewrites
from bdaudit.untrusted.tokenizer_steps import PRECOMPILED, check_steps
from bdaudit.untrusted.tree import Reader, shown

LIMITS = (64 << 20, 4_000_000)
"""Bytes, and commas plus brackets, of the largest file that any family has; a part's own ``vocabulary`` says what is read of it."""
NAMES = (
    *("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json", "chat_template.jinja"),
)

SENTENCEPIECE = "spiece.model"
_SETTINGS_LIMITS = (4 << 20, 100_000)
"""The same of a file of settings; 4,096 added tokens take 40,000 commas and brackets."""
SETTINGS = ("tokenizer_config.json", "special_tokens_map.json")
"""The files that hold settings; a loader takes both together."""
_ADDED = 4096
"""Different tokens beyond the vocabulary, in all lists of all files; each is added by itself, in time that grows by their square."""
_LISTS = ("additional_special_tokens", "extra_special_tokens", "added_tokens_decoder")
_TEMPLATES = (64, 1 << 20)
"""Chat templates, and the bytes of all of them; a CLIP tokenizer has none, and none is rendered."""


def check(
    reader: Reader, folder: str, part: Part, rows: int, found: rules.Findings, trusted: Collection[str] = ()
) -> dict[str, dict[str, Any]]:
    """Check what a loader reads of a tokenizer's folder; ``rows`` is how many ids the text encoder embeds, 0 where that is not known.
    ``trusted`` are hashes of chat templates that a person lets through.

    The settings of each file that holds some, by path.
    """
    damaged = len(found.damaged)
    held = {name: f"{folder}/{name}" for name in NAMES if f"{folder}/{name}" in reader.files}
    if "tokenizer.json" not in held and (f"{folder}/{SENTENCEPIECE}" in reader.files or f"{folder}/tokenizer.model" in reader.files):
        how = f"`transformers.AutoTokenizer.from_pretrained({folder!r}).save_pretrained({folder!r})`"
        found.unsupported.append(f"{folder}: its vocabulary is SentencePiece's alone, which is not read; make its tokenizer.json: {how}")
    elif "tokenizer.json" not in held and not {"vocab.json", "merges.txt"} <= set(held):
        found.damaged.append(f"{folder}: expected vocab.json and merges.txt, or tokenizer.json; fetch them again")
    contents: dict[str, Any] = {}
    for name, path in held.items():
        with found.catching():
            contents[name] = _file(reader, name, path, part, rows)
    if part.reading is not None and part.reading.templated:
        with found.catching():
            found.notes += templates.check(reader, folder, contents.get("tokenizer_config.json", {}), part.reading, trusted)
    with found.catching():
        _read_templates(reader, folder)
        _check_count(folder, contents)
    found.notes += [note for name in SETTINGS if name in contents for note in rules.left_behind(contents[name], held[name])]
    if len(found.damaged) == damaged and not found.refused:
        with found.catching():
            _check_one_tokenizer(reader, folder, contents, part.vocabulary)
    return {held[name]: contents[name] for name in SETTINGS if name in contents}


def with_tokens(part: Part, config: dict[str, Any]) -> Part:
    """``part``, its settings with each of the config's further special tokens: whatever ends in ``_token`` is one to a loader."""
    return replace(part, settings={**part.settings, **{key: TOKEN for key in config if key.endswith("_token")}})


def _check_count(folder: str, contents: dict[str, Any]) -> None:
    """Raises ``BdauditError`` for too many tokens, whatever lists they stand in."""
    lists = [contents.get("added_tokens.json"), contents.get("tokenizer.json", {}).get("added_tokens")]
    for settings in (contents[name] for name in SETTINGS if name in contents):
        lists += [settings.get(key) for key in _LISTS]
        lists.append([value for key, value in settings.items() if key.endswith("_token") and value is not None])
    texts: set[str] = set()
    for each in filter(None, lists):
        _few(each, folder)
        entries = each if isinstance(each, list) or type(next(iter(each.values()))) is int else each.values()
        texts |= {token_text(entry) or str(entry) for entry in entries}
    _few(list(texts), folder)


def _check_one_tokenizer(reader: Reader, folder: str, contents: dict[str, Any], allowed: Vocabulary) -> None:
    """Raises ``InconclusiveError`` where two files describe two tokenizers: which is read depends on the version of transformers."""

    whole, vocabulary, settings = (contents.get(name, {}) for name in ("tokenizer.json", "vocab.json", "tokenizer_config.json"))
    said: dict[str, list[Any]] = {"vocabulary": [vocabulary] if vocabulary else [], "merges": []}
    if "merges.txt" in contents:
        said["merges"].append(_merges(reader.checked[f"{folder}/merges.txt"].decode("utf-8").strip().split("\n"), allowed))
    if whole:
        said["vocabulary"].append(_entries(whole["model"]["vocab"]))
        said["merges"].append(_merges(whole["model"].get("merges") or [], allowed))
    if not said["vocabulary"]:
        return
    base = said["vocabulary"][0].items()
    added = [_added(settings["added_tokens_decoder"] or {})] if "added_tokens_decoder" in settings else []
    added += [contents["added_tokens.json"]] if "added_tokens.json" in contents else []
    entries = whole.get("added_tokens")
    added += [{str(entry.get("content")): entry["id"] for entry in entries}] if isinstance(entries, list) else []
    said["added tokens"] = [dict(each.items() - base) for each in added]
    differ = [what for what, each in said.items() if any(one != each[0] for one in each)]
    if differ:
        what = f"{folder}: its files differ in {' and '.join(differ)}"
        raise InconclusiveError(f"{what}, and which of them is read depends on the version of transformers; leave those of the model alone")


def _added(decoder: dict[str, Any]) -> dict[str, int]:
    entries = ((entry.get("content") if isinstance(entry, dict) else entry, number) for number, entry in decoder.items())
    return {str(text): int(number[:20]) for text, number in entries}


def _entries(vocabulary: Any) -> dict[str, int]:
    """Token → id, of a map of them or of a list of pieces and their scores."""
    return vocabulary if isinstance(vocabulary, dict) else {piece: i for i, (piece, _) in enumerate(vocabulary)}


def _merges(lines: list[Any], allowed: Vocabulary) -> list[tuple[str, ...]]:
    """Pairs in their order, without the line that tells a version.

    Raises:
        InconclusiveError: more than transformers 4 reads; what follows would count in one version and not in another.
    """
    told = (line for line in lines if line and not str(line).startswith("#version"))
    pairs = [tuple(line if isinstance(line, list) else str(line).split()) for line in told]
    most = allowed.merges
    if most is not None and len(pairs) > most:
        raise InconclusiveError(f"tokenizer: {len(pairs):,} merges; a CLIPTokenizer of transformers 4 reads the first {most:,} alone")
    return pairs


def _read_templates(reader: Reader, folder: str) -> None:
    paths = [path for path in reader.files if path.startswith(f"{folder}/additional_chat_templates/")]
    most, room = _TEMPLATES
    if len(paths) > most or sum(reader.files[path] for path in paths) > room:
        raise BdauditError(f"{folder}: {len(paths)} chat templates; at most {most} of {room:,} bytes are read; remove those not needed")
    for path in paths:
        reader.content(path, room)


def _file(reader: Reader, name: str, path: str, part: Part, rows: int) -> dict[str, Any]:
    """Check one file by itself; what it holds, where that is JSON."""
    if not name.endswith(".json"):
        try:
            reader.content(path, part.vocabulary.most_bytes).decode("utf-8")
        except UnicodeDecodeError as error:
            raise BdauditError(f"{path} is not UTF-8 (byte {error.start})") from error
        return {}
    content = reader.json(path, _SETTINGS_LIMITS if name in SETTINGS else (part.vocabulary.most_bytes, part.vocabulary.most_items))
    if name in SETTINGS:
        for key in _LISTS:  # first, for all else takes time by their number
            _few(content.get(key) or [], path)
        rules.check_config(content, path)
        check_settings(content, with_tokens(part, content).settings, path)
        _check_decoder(content.get("added_tokens_decoder") or {}, path, rows)
    elif name == "vocab.json" or (name == "added_tokens.json" and content):
        check_vocabulary(content, path, rows)
    elif name == "tokenizer.json":
        _check_serialised(content, path, part.vocabulary, rows)
    return content


def _check_decoder(added: dict[str, Any], path: str, rows: int) -> None:
    if not all(key.isascii() and key.isdecimal() for key in added):
        raise BdauditError(f"{path}: added_tokens_decoder is not a map of ids to tokens")
    for key in added:
        _check_id(int(key[:20]), path, rows)


def _check_serialised(content: dict[str, Any], path: str, allowed: Vocabulary, rows: int) -> None:
    model, kind = content.get("model"), allowed.model
    if not isinstance(model, dict) or model.get("type", "BPE") != kind:
        raise BdauditError(f"{path}: expected a {kind} model, as {'CLIP' if kind == 'BPE' else 'T5'}'s")
    if kind == "BPE" and not isinstance(model.get("merges"), list):
        raise BdauditError(f"{path}: the BPE model has no list of merges")
    for pattern in patterns({key: value for key, value in content.items() if key != "model"}):
        if not isinstance(pattern, str) or (pattern not in allowed.patterns and can_run_long(pattern)):
            raise BdauditError(f"{path}: the pattern {shown(pattern)} is none of CLIP's, and could run for ever on a text")
    check_steps(content, path, also=frozenset({PRECOMPILED}) if kind == "Unigram" else frozenset())
    added = content["added_tokens"] if isinstance(content.get("added_tokens"), list) else []
    for entry in added:
        number = entry.get("id") if isinstance(entry, dict) else None
        if type(number) is not int:
            raise BdauditError(f"{path}: an added token without an id")
        if token_text(entry) is None:
            said = f"{path}: an added token is {shown(entry.get('content'), 60)}"
            raise BdauditError(f"{said}; expected a text of at most {LONGEST_TOKEN:,} characters")
        _check_id(number, path, rows)
    ids = check_vocabulary(_pieces(model, path) if kind == "Unigram" else model.get("vocab"), path, rows)
    check_rewrites(content, path, ids | {entry["content"]: entry["id"] for entry in added})


def _pieces(model: dict[str, Any], path: str) -> dict[str, int]:
    """Piece → id; each piece once, with a score that is a number, and the unknown one among them.

    Raises:
        BdauditError: anything else.
    """
    pieces, unknown = model.get("vocab"), model.get("unk_id")
    pairs = isinstance(pieces, list) and all(
        isinstance(p, list) and len(p) == 2 and isinstance(p[0], str) and type(p[1]) in (int, float) and math.isfinite(p[1]) for p in pieces
    )
    if not pairs or not isinstance(pieces, list):
        raise BdauditError(f"{path}: the vocabulary is not a list of pieces, each with its score")
    if len({piece for piece, _ in pieces}) != len(pieces):
        raise BdauditError(f"{path}: two tokens share a text")
    if type(unknown) is not int or not 0 <= unknown < len(pieces):
        raise BdauditError(f"{path}: unk_id is {shown(unknown)}; expected one of {len(pieces):,} ids")
    return _entries(pieces)


def patterns(value: Any) -> Iterator[Any]:
    """Every regular expression in a serialised tokenizer, at any depth."""
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            yield from (inner for key, inner in item.items() if key == "Regex")
            todo += item.values()
        elif isinstance(item, list):
            todo += item


def can_run_long(pattern: object) -> bool:
    """Whether a regular expression may backtrack: a group, a reference, or two repetitions in one branch. None of CLIP's has any."""
    if not isinstance(pattern, str) or len(pattern) > LONGEST_TOKEN:
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
    if max(map(len, vocabulary)) > LONGEST_TOKEN:
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
        said = f"{where}: {len(added):,} tokens beside the vocabulary (special and added ones together); at most {_ADDED:,} are read"
        raise BdauditError(f"{said}; remove those that the model was not trained with")
