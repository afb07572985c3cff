"""Typer's parameters, made from the fields of dataclasses: the text below a field is the flag's help, its class's docstring the heading."""

from __future__ import annotations

import ast
import functools
import inspect
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer
from typer.core import TyperCommand

from bdaudit.cli.panels import LAST, MODEL, OUTPUT, panel_of
from bdaudit.cli.values import KINDS, WRITTEN, Typed
from bdaudit.config import RunConfig
from bdaudit.config.flag import Flag, declared
from bdaudit.errors import UsageError


class Given(dict[str, Any]):
    """Field → value, of what was typed and of nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[tuple[str, Path]] = []
        """Flag and path of every file and folder that the run reads, models aside."""


@dataclass(frozen=True)
class Option:
    """How a field is typed."""

    flag: Flag
    kind: Typed
    parameter: inspect.Parameter
    """For Typer; of no use where the flag is another field's."""


@dataclass(frozen=True)
class Delivery:
    """Output."""

    json: bool = False
    """Put the report on stdout as one JSON document, and nothing else."""
    report: Annotated[tuple[Path, ...], Flag("report")] = ()
    """Also write the report there; the suffix says how: .json, .html, .sarif, .md or .intoto.json."""
    quiet: bool = False
    """No progress bar on stderr; a line every 30 s instead."""
    once: bool = False
    """Leave at once, with the same exit code, where every --report of this very run (models, settings, versions, files) lies there whole;
    a mark beside the first one, FILE.done, says so."""
    dry_run: bool = False
    """Say what would be loaded, run and written, and about how long it takes, by one batch of random weights; loads none of MODEL's."""


def takes(*kinds: type[Any]) -> Callable[[Callable[[Given], int]], Callable[..., int]]:
    """Makes a command of a function: it takes the flags of the fields of ``kinds`` and of ``Delivery``, and hands over what was typed."""
    known = {**options(*kinds, but=_of_every_command()), **_of_every_command()}

    def made(command: Callable[[Given], int]) -> Callable[..., int]:
        @functools.wraps(command)
        def run(**typed: Any) -> int:
            return command(_read(known, typed))

        run.__signature__ = inspect.Signature([option.parameter for option in known.values() if not option.flag.of])  # type: ignore[attr-defined]
        return run

    return made


def _read(known: Mapping[str, Option], typed: Mapping[str, Any]) -> Given:
    given = Given()
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
    return [(flag, place(each)) for each in typed] if place else []


@functools.cache
def _of_every_command() -> Mapping[str, Option]:
    return options(RunConfig, Delivery)


def options(*kinds: type[Any], but: Collection[str] = ()) -> Mapping[str, Option]:
    """Field → how it is typed, of dataclasses; of a field that several have, as the first one has it."""
    known: dict[str, Option] = {}
    for kind in kinds:
        for field in fields(kind):
            if field.name not in known and field.name not in but:
                owner = next(owner for owner in kind.__mro__ if field.name in declared(owner))
                known[field.name] = _option(field, *declared(owner)[field.name], _texts(owner.__module__)[owner.__name__])
    return known


@functools.cache
def _texts(module: str) -> dict[str, dict[str, str]]:
    """Class → field → the text below it; under no name the class's own."""
    texts: dict[str, dict[str, str]] = {}
    for made in ast.parse(inspect.getsource(sys.modules[module])).body:
        if isinstance(made, ast.ClassDef):
            texts[made.name] = {"": ast.get_docstring(made) or ""}
            for pair in pairwise(made.body):
                match pair:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                        texts[made.name][name] = " ".join(text.split())
    return texts


def _option(field: Field[Any], flag: Flag, hint: Any, texts: Mapping[str, str]) -> Option:
    kind = KINDS[flag.kind]
    required = field.default is MISSING
    settings: dict[str, Any] = {
        "metavar": flag.metavar or kind.metavar, "help": texts[field.name] + _more(kind, field.default), "show_default": False,
        "rich_help_panel": panel_of(field.name, texts[""].rstrip(".")), **kind.checks,
    }  # fmt: skip
    made = typer.Argument(**settings) if required else typer.Option(flag.name, **settings)
    own = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    parameter = inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if required else None,
        annotation=Annotated[kind.by_typer or own, made],
    )
    return Option(flag, kind, parameter)


def _more(kind: Typed, default: Any) -> str:
    """What the help says of every flag of its kind: that it may stand several times, and its default unless that says nothing."""
    again = " Repeatable." if get_origin(kind.by_typer) is list else ""
    if default is MISSING or default is None or default is False or default in ("", ()):
        return again
    return f"{again}  [default: {','.join(f'{part:g}' for part in default) if isinstance(default, tuple) else default}]"


class Headed(TyperCommand):
    """A command whose help lists its options by panel: the model first, what the command is about, then output, machine and the rest."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {MODEL: []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record:
                sections.setdefault(getattr(parameter, "rich_help_panel", None) or OUTPUT, []).append(record)
        for heading in (*(name for name in sections if name not in LAST), *(name for name in LAST if name in sections)):
            with formatter.section(heading):
                formatter.write_dl(sections[heading])
