"""From what a program hands over to the fields of a config: places as their flags are read, everything else checked by its type."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bdaudit.cli.values import FILE, FOLDER, KINDS, need_name
from bdaudit.config.flag import Flag, declared
from bdaudit.errors import UsageError

_TEXTS = ("plain", "texts", "suspects", "suspect", "trigger", "each", "size", "shares", "acceptances", "corner")
"""Kinds whose value is handed over as it is; on the command line some of them are a file's."""


def fields_of(kinds: tuple[type[Any], ...]) -> dict[str, tuple[Flag, Any]]:
    """Field → its flag and its type, of several configs; of a field that several have, as the first one has it."""
    found: dict[str, tuple[Flag, Any]] = {}
    for kind in kinds:
        for owner in kind.__mro__:
            found |= {name: value for name, value in declared(owner).items() if name not in found}
    return found


def settings_of(kinds: tuple[type[Any], ...], given: Mapping[str, Any]) -> tuple[dict[str, Any], list[tuple[str, Path]]]:
    """Field → value for a config of ``kinds``, and the files and folders that are read, models aside, each with its name.

    Raises:
        UsageError: a name that no option has, a value of another type, or a place where nothing is.
    """
    known, settings, opened = fields_of(kinds), dict[str, Any](), list[tuple[str, Path]]()
    for name, value in given.items():
        if name not in known:
            raise UsageError(f"{name!r} is no option; expected one of {', '.join(sorted(known))}")
        if value is not None:
            settings[name] = _value(name, *known[name], value)
            opened += _opened(name, known[name][0], value)
    return settings, opened


def _value(name: str, flag: Flag, hint: Any, value: Any) -> Any:
    if flag.kind in _TEXTS:
        return _checked(name, hint, value)
    several = isinstance(value, list | tuple)
    typed = [os.fspath(each) for each in (value if several else [value])]
    kind = KINDS[flag.kind]
    for each in typed:
        _need_there(name, kind.checks, each)
    return kind.read(typed if several else typed[0], name)


def _checked(name: str, hint: Any, value: Any) -> Any:
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        raise UsageError(f"{name} is {value!r:.80}: {problem['msg']}") from error


def _need_there(name: str, checks: Mapping[str, Any], place: str) -> None:
    """Raises ``UsageError`` as Typer does where a file or folder is expected and is none."""
    if not place:
        raise UsageError(f"{name} is empty; expected a path")
    need_name(place, name)
    for wanted, there, what in ((FILE, os.path.isfile, "file"), (FOLDER, os.path.isdir, "folder")):
        if checks == wanted and not there(place):
            raise UsageError(f"{name} {place}: no such {what}")


def _opened(name: str, flag: Flag, value: Any) -> list[tuple[str, Path]]:
    place = KINDS[flag.kind].place
    reads = place is not None and flag.kind not in (*_TEXTS, "model", "new file", "new folder", "report")
    each = value if isinstance(value, list | tuple) else [value]
    return [(f"--{name}", place(os.fspath(one))) for one in each] if reads and place else []
