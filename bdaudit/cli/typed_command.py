"""From what Typer hands over to what a command takes: typed by the person, or in the file of ``--settings`` where nothing was typed."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from bdaudit.cli.options import Option, of_every_command, options
from bdaudit.cli.panels import LAST, MODEL, OUTPUT
from bdaudit.cli.settings_file import VARIABLE, read_settings, told
from bdaudit.cli.values import WRITTEN, need_name
from bdaudit.errors import UsageError


class Given(dict[str, Any]):
    """Field → value, of what was typed and of nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[tuple[str, Path]] = []
        """Flag and path of every file and folder that the run reads, models aside."""
        self.from_file: frozenset[str] = frozenset()
        """Fields that ``--settings`` gave, and no flag."""
        self.note = ""
        """What of these touches the gate, for the last line."""


def takes(*kinds: type[Any]) -> Callable[[Callable[[Given], int]], Callable[..., int]]:
    """Makes a command of a function: it takes the flags of the fields of ``kinds`` and of ``Delivery``, and hands over what was typed."""
    known = {**options(*kinds, but=of_every_command()), **of_every_command()}

    def made(command: Callable[[Given], int]) -> Callable[..., int]:
        _VERBS[command.__name__] = known

        @functools.wraps(command)
        def run(ctx: Any, **typed: Any) -> int:
            return command(_read(known, typed, _from_file(ctx)))

        context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        run.__signature__ = inspect.Signature([*(o.parameter for o in known.values() if not o.flag.of), context])  # type: ignore[attr-defined]
        return run

    return made


_VERBS: dict[str, Mapping[str, Option]] = {}
"""Verb → field → its option."""


def _from_file(ctx: Any) -> dict[str, Any]:
    """Field → value of what ``--settings`` gave, and no flag."""
    given: Mapping[str, Any] = ctx.default_map or {}
    return {name: value for name, value in given.items() if getattr(ctx.get_parameter_source(name), "name", "") == "DEFAULT_MAP"}


def _settings(ctx: Any, parameter: Any, value: str | None) -> str | None:
    """Called before any other option is looked at: what the file says stands where nothing is typed."""
    if value:
        ctx.default_map = read_settings(Path(value), ctx.info_name, _VERBS, of_every_command())
    return value


def _read(known: Mapping[str, Option], typed: Mapping[str, Any], from_file: Mapping[str, Any]) -> Given:
    given = Given()
    given.from_file = frozenset(from_file)
    if from_file:
        given.note = told(from_file, known, typed["settings"])
    for name, option in known.items():
        source = known[option.flag.of or name]
        value = typed[option.flag.of or name]
        if value is not None and value is not False:
            places = _places(value, source)
            given[name] = option.kind.read(value, source.flag.name)
            given.opened += [] if option.flag.of or option.flag.kind in (*WRITTEN, "model") else places
    return given


def _places(value: Any, option: Option) -> list[tuple[str, Path]]:
    """The flag and each path in what was typed; raises ``UsageError`` for an empty one, which is an unset variable of a shell more often
    than a name of the working directory."""
    place, flag = option.kind.place, option.flag.name
    typed = [] if place is None else value if isinstance(value, list) else [value]
    if "" in typed:
        raise UsageError(f"{flag} is empty; expected a path, . for the working directory")
    found = [(flag, place(each)) for each in typed] if place else []
    for _, path in found:
        need_name(os.fspath(path), flag)
    return found


class Headed(TyperCommand):
    """A command whose help lists its options by panel: the model first, what the command is about, then output, machine and the rest.

    Its options may stand in a file.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        for parameter in self.params:
            if parameter.name == "settings":
                parameter.is_eager, parameter.callback, parameter.envvar = True, _settings, VARIABLE

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            name = getattr(getattr(error, "param", None), "name", "")
            if name in _from_file(ctx) and hasattr(error, "message"):
                error.message = f"{error.message} It is from --settings {ctx.params['settings']}."
            raise

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {MODEL: []}
        for parameter in sorted(self.get_params(ctx), key=lambda one: one.param_type_name != "argument"):
            record = parameter.get_help_record(ctx)
            if record:
                sections.setdefault(getattr(parameter, "rich_help_panel", None) or OUTPUT, []).append(record)
        for heading in (*(name for name in sections if name not in LAST), *(name for name in LAST if name in sections)):
            with formatter.section(heading):
                formatter.write_dl(sections[heading])
