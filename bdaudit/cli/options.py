"""Typer's parameters, made from the fields of dataclasses: the text below a field is the flag's help, its class's docstring the heading."""

from __future__ import annotations

import ast
import functools
import inspect
import sys
from collections.abc import Collection, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from bdaudit.cli.panels import panel_of
from bdaudit.cli.values import KINDS, Typed
from bdaudit.config import RunConfig
from bdaudit.config.flag import Flag, declared

Format = Literal["table", "json", "sarif", "html", "md"]


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
    """The same as --format json without -o."""
    report: Annotated[tuple[Path, ...], Flag("report")] = ()
    """Also write the report there; the suffix says how: .json, .html, .sarif, .md, .txt or .intoto.json."""
    output: Annotated[Path | None, Flag("new file", short="-o")] = None
    """Also write the report there, as --format says, or else as the suffix does. What unlearn
    makes of a model goes to its --out, not here."""
    format: Format | None = None
    """What -o writes. Without -o, what goes to stdout, and nothing else does; default: the tables."""
    quiet: Annotated[bool, Flag(short="-q")] = False
    """No progress bar on stderr, and no word of what begins; a line every 30 s instead."""
    verbose: Annotated[bool, Flag(short="-v")] = False
    """Say on stderr when each stage begins and how long it took; of an error that nobody foresaw, where it came from."""
    once: bool = False
    """Leave at once, with the same exit code, where every --report of this very run (models, settings, versions, files) lies there whole;
    a mark beside the first one, FILE.done, says so."""
    settings: Annotated[Path | None, Flag("file")] = None
    """TOML file of options: a table [scan], [unlearn] or [verify] with keys such as fail-on, or keys above the tables for every verb. A
    flag wins. Never from a folder that the run opens; what touches the gate and came from it stands in the last line."""
    dry_run: bool = False
    """Say what would be loaded, run and written, and about how long it takes, by one batch of random weights; loads none of MODEL's."""


@functools.cache
def of_every_command() -> Mapping[str, Option]:
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
    kind, text = KINDS[flag.kind], texts[field.name]
    required = field.default is MISSING
    settings: dict[str, Any] = {
        "metavar": flag.metavar or kind.metavar, "help": text + _more(kind, field.default, text), "show_default": False,
        "rich_help_panel": panel_of(field.name, texts[""].rstrip(".")), **kind.checks,
    }  # fmt: skip
    names = [name for name in (flag.short, flag.name) if name]
    made = typer.Argument(**settings) if required else typer.Option(*names, **settings)
    own = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    parameter = inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if required else None,
        annotation=Annotated[kind.by_typer or own, made],
    )
    return Option(flag, kind, parameter)


def _more(kind: Typed, default: Any, text: str) -> str:
    """What the help says of every flag of its kind: that it may stand several times, and its default unless that or the text says it."""
    again = " Repeatable." if get_origin(kind.by_typer) is list else ""
    if "Default: " in text or default is MISSING or default is None or default is False or default in ("", ()):
        return again
    return f"{again}  [default: {','.join(f'{part:g}' for part in default) if isinstance(default, tuple) else default}]"
