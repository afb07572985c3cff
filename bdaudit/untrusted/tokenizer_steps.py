"""The steps that a ``tokenizer.json`` prepares texts by: known kinds alone, none that lets a text grow without end."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Any

from bdaudit.errors import BdauditError
from bdaudit.untrusted.tree import shown

KINDS = frozenset(
    {"Sequence", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "StripAccents", "Replace", "Prepend", "BertNormalizer", "Nmt"}
    | {"Split", "Whitespace", "WhitespaceSplit", "Punctuation", "Digits", "BertPreTokenizer", "Metaspace", "ByteLevel", "ByteFallback"}
    | {"RobertaProcessing", "BertProcessing", "TemplateProcessing", "BPEDecoder", "Fuse", "WordPiece"}
)
"""Kinds of steps; Precompiled, a table of bytes that makes its library panic where it is broken, is none that CLIP has."""
PRECOMPILED = "Precompiled"
MOST_STEPS, MOST_PIECES = 64, 64
"""Steps in all, and tokens that a template puts around a text."""
MOST_GROWTH, LONGEST_PREPENDED = 64, 64
"""How many times as long all replacements together may make a text, and characters that are put before it."""
_SECTIONS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
_INNER = ("normalizers", "pretokenizers", "processors", "decoders")
_CAN_BE_EMPTY = re.compile(r"[*?{^$]|\\[bBAzZG]|^\||\|\||\|$|^$")


def check_steps(content: dict[str, Any], where: str, *, also: frozenset[str] = frozenset()) -> None:
    """Check all steps of a serialised tokenizer, which may be of the kinds ``also`` too.

    Raises:
        BdauditError: an unknown kind, too many, or some that make any text long.
    """
    steps = [step for section in _SECTIONS for step in _checked(content.get(section), where)]
    if len(steps) > MOST_STEPS:
        raise BdauditError(f"{where}: {len(steps):,} steps; at most {MOST_STEPS} are taken of a tokenizer")
    growth = 1.0
    for step in steps:
        kind = step.get("type") if isinstance(step, dict) else step
        if not isinstance(step, dict) or not isinstance(kind, str) or kind not in KINDS | also:
            raise BdauditError(f"{where}: a step of the kind {shown(kind)}; expected those that text encoders' tokenizers are made of")
        growth *= _growth(step, where)
    if growth > MOST_GROWTH:
        raise BdauditError(f"{where}: its replacements make a text up to {growth:,.0f} times as long; at most {MOST_GROWTH} are taken")


def steps_in(step: Any) -> Iterator[Any]:
    """A step and those in it, at any depth, in their order."""
    if step is None:
        return
    yield step
    for key in _INNER if isinstance(step, dict) else ():
        for each in step.get(key) or []:
            yield from steps_in(each)


def _checked(step: Any, where: str) -> list[Any]:
    """The same of what may be no list of steps."""
    todo = [step]
    while todo:
        each = todo.pop()
        for key in _INNER if isinstance(each, dict) else ():
            inner = each.get(key) or []
            if not isinstance(inner, list):
                raise BdauditError(f"{where}: {key} is {shown(inner, 60)}; expected a list of steps")
            todo += inner
    return list(steps_in(step))


def _growth(step: dict[str, Any], where: str) -> float:
    """How many times as long a step can make a text; 1 where it only puts a few characters or tokens around it."""
    if step["type"] == "Prepend" and len(str(step.get("prepend"))) > LONGEST_PREPENDED:
        raise BdauditError(
            f"{where}: it puts {len(str(step['prepend'])):,} characters before a text; at most {LONGEST_PREPENDED} are taken"
        )
    if step["type"] == "TemplateProcessing":
        _check_template(step, where)
    if step["type"] == PRECOMPILED:
        return _mapped(step.get("precompiled_charsmap"), where)
    return _replaced(step.get("pattern"), len(str(step.get("content")))) if step["type"] == "Replace" else 1.0


def _replaced(pattern: Any, length: int) -> float:
    told = pattern if isinstance(pattern, dict) else {}
    text = told.get("String")
    if isinstance(text, str) and text:
        return max(1.0, length / len(text))
    return 1.0 + length if not isinstance(told.get("Regex"), str) or _CAN_BE_EMPTY.search(told["Regex"]) else max(1.0, length)


def _mapped(table: Any, where: str) -> float:
    """How many times as long SentencePiece's table of characters can make a text: bytes of the longest that it puts in a character's place.

    Its length, the offsets of a trie, and what they lead to, each ended by a NUL.
    """
    try:
        raw = base64.b64decode(table, validate=True) if isinstance(table, str) else b""
    except (binascii.Error, ValueError):
        raw = b""
    trie = int.from_bytes(raw[:4], "little")
    if len(raw) < 4 or trie % 4 or trie > len(raw) - 4:
        raise BdauditError(f"{where}: its table of characters is damaged")
    return float(max(1, *map(len, raw[4 + trie :].split(b"\0"))))


def _check_template(step: dict[str, Any], where: str) -> None:
    special = step.get("special_tokens")
    listed = list(special.values()) if isinstance(special, dict) else [special] if special else []
    pieces = [step.get("single"), step.get("pair"), listed]
    pieces += [each.get(key) for each in listed if isinstance(each, dict) for key in ("ids", "tokens")]
    for each in pieces:
        if each is not None and len(each if isinstance(each, list | str) else [each]) > MOST_PIECES:
            raise BdauditError(f"{where}: its template puts more than {MOST_PIECES} tokens around a text")
