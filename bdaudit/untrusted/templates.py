"""Chat templates that lie with a tokenizer. A template is code, and what it does to a prompt touches no weight; none is ever run here.

bdaudit lays a prompt out itself, with the prefix and the suffix of the family's ``Reading``. A template that is not known to say just that
is refused, unless a person looked at it and named its hash (``--trust-template``): the prompt is laid out as ever, and the report says so.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from bdaudit.errors import BdauditError, InconclusiveError, RefusedError
from bdaudit.untrusted.layouts.layout import Reading
from bdaudit.untrusted.tree import Reader, shown

FILES = ("chat_template.jinja", "chat_template.json", "processor_config.json", "preprocessor_config.json", "special_tokens_map.json")
"""Files of a tokenizer's folder where a template may stand, beside ``tokenizer_config.json`` and ``additional_chat_templates/``."""
_KEY, _MOST, _LINES = "chat_template", 1 << 20, 24


def digest(template: str) -> str:
    """SHA-256 in hex, without a line's end at the very end, which Jinja drops."""
    return hashlib.sha256(template.removesuffix("\n").encode("utf-8")).hexdigest()


def check(reader: Reader, folder: str, settings: Mapping[str, Any], reading: Reading, trusted: Collection[str]) -> list[str]:
    """Check every place where a template of ``folder`` may stand; notes on what was let through. ``settings`` are the tokenizer's.

    Raises:
        RefusedError: a template that is neither known nor trusted, with its hash and what sets it apart.
        InconclusiveError: there is none, so that the stock pipeline lays no prompt out; or there are several.
        BdauditError: what stands there is no text.
    """
    found = dict(_found(reader, folder, settings))
    if not found:
        raise InconclusiveError(f"{folder}: there is no chat template, by which the pipeline lays a prompt out; fetch the tokenizer again")
    unknown = {where: text for where, text in found.items() if digest(text) not in {*reading.templates, *trusted}}
    if unknown:
        raise RefusedError([_refused(where, text, reading) for where, text in unknown.items()])
    if len({digest(text) for text in found.values()}) > 1:
        said = f"{folder}: its chat templates differ ({', '.join(map(shown, found))}), and which of them counts depends on the loader"
        raise InconclusiveError(f"{said}; leave one of them")
    (first, *_) = found.values()
    own = digest(first)
    if own in reading.templates:
        return []
    return [f"{folder}: its chat template (SHA-256 {own}) is trusted by --trust-template; it was not run, the prompt was laid out as ever"]


def _found(reader: Reader, folder: str, settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Where a template stands, and what it says."""
    yield from _named(f"{folder}/tokenizer_config.json", settings.get(_KEY))
    for name in FILES:
        path = f"{folder}/{name}"
        if path in reader.files:
            yield from _named(path, reader.json(path).get(_KEY) if name.endswith(".json") else _text(reader, path))
    for path in reader.files:
        if path.startswith(f"{folder}/additional_chat_templates/"):
            yield path, _text(reader, path)


def _text(reader: Reader, path: str) -> str:
    try:
        return reader.content(path, _MOST).decode("utf-8")
    except UnicodeDecodeError as error:
        raise BdauditError(f"{path} is not UTF-8 (byte {error.start})") from error


def _named(where: str, value: Any) -> Iterator[tuple[str, str]]:
    """Of a setting: one template, a list of named ones, or a map of them."""
    if value is None:
        return
    if isinstance(value, str):
        yield where, value
        return
    pairs = list(value.items()) if isinstance(value, dict) else [_pair(each, where) for each in value] if isinstance(value, list) else []
    if not pairs or not all(isinstance(text, str) for _, text in pairs):
        raise BdauditError(f"{where}: {_KEY} is {shown(value, 60)}; expected a template, or several with their names")
    yield from ((f"{where}: {shown(name, 40)}", text) for name, text in pairs)


def _pair(entry: Any, where: str) -> tuple[Any, Any]:
    if not isinstance(entry, dict) or {"name", "template"} - entry.keys():
        raise BdauditError(f"{where}: {_KEY} lists {shown(entry, 60)}; expected a name and a template")
    return entry["name"], entry["template"]


def _refused(where: str, text: str, reading: Reading) -> str:
    """Its hash, and how it differs from one that says what bdaudit lays out."""
    own = f"{reading.prefix}{{{{ messages[0].content }}}}{reading.suffix}".splitlines()
    lines = list(difflib.unified_diff(own, text.splitlines(), "as bdaudit lays a prompt out", where, lineterm="", n=0))
    told = "\n".join(f"  {shown(line, 160)}" for line in lines[:_LINES])
    more = f"\n  and {len(lines) - _LINES} lines more" if len(lines) > _LINES else ""
    said = f"{shown(where)}: an unknown chat template; read it, and let it through with --trust-template {digest(text)}, its SHA-256"
    return f"{said}; what a template does to a prompt touches no weight, and this one differs:\n{told}{more}"
