"""``--settings FILE``: TOML with a table a verb, whose keys are the verb's options; what stands above the tables holds for every verb.

    device = "cuda"

    [scan]
    fail-on = "suspicious"
    candidates = "tokens.txt"

    [verify]
    max-asr = 0.02

A value is what would be typed, so that it is read and checked as it would be there; a flag wins over it. A key that no option has is an
error, in the table of another verb too: a bound with a slip in its name would gate nothing. No file is looked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

from bdaudit.cli.options import Option
from bdaudit.errors import UsageError
from bdaudit.untrusted.open_file import read_toml

VARIABLE = "BDAUDIT_SETTINGS"
"""The environment variable that names the file where no flag does."""
GATE = frozenset((
    "fail_on", "alpha", "accept", "workers", "clip", "policy", "evidence", "max_asr", "min_clip_score", "max_kid", "max_fid",
    "min_clip_ratio", "max_distance", "variant", "allow_pickle", "trusted_templates",
))  # fmt: skip
"""Fields that decide what is let through: the last line says which of them came from the file."""
_SHOWN = 40
"""Characters of a value that the last line shows."""

Verbs = Mapping[str, Mapping[str, Option]]
"""Verb → field → its option."""


def read_settings(path: Path, verb: str, verbs: Verbs, everywhere: Iterable[str]) -> dict[str, Any]:
    """Field → value, as it would be typed, of what the file says for ``verb``; ``everywhere`` are the fields that all verbs have.

    Raises:
        UsageError: no TOML, another table, a key that is no option, or a value that cannot be typed.
    """
    said = f"--settings {path}"
    document = read_toml(path, said)
    tables = {name: value for name, value in document.items() if isinstance(value, dict)}
    unknown = sorted(set(tables) - set(verbs))
    if unknown:
        raise UsageError(f"{said}: unknown table {unknown[0]!a}; expected some of {', '.join(f'[{name}]' for name in verbs)}")
    above = {name: value for name, value in document.items() if name not in tables}
    shared = {field: verbs[verb][field] for field in everywhere}
    read = {name: _table(table, verbs[name], f"{said}: [{name}]") for name, table in tables.items()}
    _check_above(above, verbs, shared, said)
    return _table(above, shared, f"{said}: above the tables,") | read.get(verb, {})


def _check_above(above: Iterable[str], verbs: Verbs, shared: Mapping[str, Option], said: str) -> None:
    """That no option of some verbs alone stands where only those of every verb may."""
    for name in above:
        of = [f"[{verb}]" for verb, known in verbs.items() if _key(name) in _names(known)]
        if of and _key(name) not in _names(shared):
            which = "an option of" if len(of) == 1 else "no option of every verb, but of"
            raise UsageError(f"{said}: {name[:80]!a} stands above the tables, and is {which} {' and '.join(of)}; put it below that line")


def told(fields: Mapping[str, Any], known: Mapping[str, Option], path: Path) -> str:
    """What of the file's ``fields`` touches the gate, for the last line; nothing where none does."""
    shown = [f"{known[name].flag.name} {_short(value)}".rstrip() for name, value in fields.items() if name in GATE]
    return f"from --settings {path}: {', '.join(shown)}" if shown else ""


def _short(value: Any) -> str:
    text = "" if value is True else ",".join(value) if isinstance(value, list) else str(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _table(table: Mapping[str, Any], known: Mapping[str, Option], said: str) -> dict[str, Any]:
    names = _names(known)
    read: dict[str, Any] = {}
    for name, value in table.items():
        field = names.get(_key(name))
        if field is None:
            raise UsageError(f"{said} {name[:80]!a} is no option there; expected some of {', '.join(sorted(names))}")
        if field in read:
            raise UsageError(f"{said} {name[:80]!a} stands twice, with - and with _; give it once")
        read[field] = _typed(value, known[field], f"{said} {name}")
    return read


def _names(known: Mapping[str, Option]) -> dict[str, str]:
    """As the file may call each → its field."""
    return {_key(option.flag.name): field for field, option in known.items() if _can_be_set(field, option)}


def _key(name: str) -> str:
    """Of a flag, or as it is written in the file: with ``-`` or with ``_``."""
    return name.removeprefix("--").replace("_", "-")


def _can_be_set(field: str, option: Option) -> bool:
    return option.flag.name.startswith("--") and not option.flag.of and field != "settings"


def _typed(value: Any, option: Option, said: str) -> Any:
    """A value as the command line would have it: a text, several of an option that may stand several times, or whether a flag is given."""
    wanted = get_args(option.parameter.annotation)[0]
    if wanted is bool:
        if not isinstance(value, bool):
            raise UsageError(f"{said} is {value!a:.80}; expected true or false")
        return value
    several = option.kind.by_typer is not None and get_args(option.kind.by_typer) != ()
    if several:
        return [_text(each, said) for each in (value if isinstance(value, list) else [value])]
    return _text(value, said)


def _text(value: Any, said: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UsageError(f"{said} is {value!a:.80}; expected what would be typed, a text or a number")
    if "\0" in str(value):
        raise UsageError(f"{said} has a NUL character in it; no command line can")
    return str(value)
