"""How what stands after a flag becomes a field's value, for each kind of value that a field can name.

Every reader takes what Typer hands over and the flag, for its messages; it raises ``UsageError`` for a text that is none of its kind.
"""

from __future__ import annotations

import errno
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from bdaudit.config import Acceptance, Evidence
from bdaudit.config.flag import Kind
from bdaudit.errors import UsageError
from bdaudit.untrusted.tree import shown

_NO_NAMES = {errno.ENAMETOOLONG: "name it shorter", errno.ELOOP: "it is a link that leads back to itself; name what it was to lead to"}
_NUMBER = re.compile(r"[-+]?\d*\.?\d+(e[-+]?\d+)?", re.ASCII | re.IGNORECASE)
"""How a scale is typed, and as Python writes one."""


def model(typed: str, flag: str) -> Path:
    """A model's directory or file, or the snapshot in the hub's cache that an id means; of anything else it says what to do."""
    from bdaudit.untrusted.hub_cache import download_of, find, split_id

    path = find(typed, flag) or Path(typed)
    if path.is_dir() or path.is_file():
        return path
    how = ""
    if "/" in split_id(typed)[0] and not path.exists():
        how = f", or a model in the hub's cache on this machine, which `{download_of(typed)}` would put there"
    what = "is no regular file" if path.exists() else "does not exist"
    raise UsageError(f"{flag} {path} {what}; expected a directory in diffusers' layout, or a checkpoint in one .safetensors file{how}")


def need_name(typed: str, flag: str) -> None:
    """Raises ``UsageError`` for a path that the system does not even look up: Python's own questions about it raise other errors."""
    try:
        os.path.isabs(typed) or os.getcwd()
    except OSError as error:
        raise UsageError(f"{flag} {shown(typed)} lies in the working directory, which is gone; go to another one") from error
    try:
        os.stat(typed)
    except OSError as error:
        if error.errno in _NO_NAMES:
            raise UsageError(f"{flag} {shown(typed)} is no name of a file: {error.strerror}; {_NO_NAMES[error.errno]}") from error
    except ValueError as error:
        raise UsageError(f"{flag} {shown(typed)} is no name of a file: {error}") from error


def part(typed: str, flag: str) -> tuple[str, str, Path]:
    """``NAME=FILE`` or ``OF:NAME=FILE``: whose part it is (empty for MODEL's), its name, and the file."""
    parsed = re.fullmatch(r"(?:(before|reference|base):)?(\w+)=(.+)", typed, re.ASCII | re.DOTALL)
    if not parsed:
        raise UsageError(f"{flag} is {typed!r}; expected NAME=FILE, such as {flag} vae=vae.safetensors")
    if not os.path.isfile(parsed[3]):
        raise UsageError(f"{flag} {parsed[3]}: no such file; expected NAME=FILE")
    return parsed[1] or "", parsed[2], Path(parsed[3])


def a_path(typed: str, flag: str) -> Path:
    """A path."""
    return Path(typed)


def texts(typed: str, flag: str) -> tuple[str, ...]:
    """A file's texts."""
    from bdaudit.untrusted.text_files import read_texts

    return read_texts(Path(typed), what=_words(flag))


def suspects(typed: str, flag: str) -> tuple[str, ...]:
    """A file's texts that may be triggers, or hold one: a line that is written like a character's code or name is read both ways."""
    from bdaudit.spelling.reader import both
    from bdaudit.untrusted.text_files import read_texts

    return read_texts(Path(typed), what=_words(flag), read=both)


def _words(flag: str) -> str:
    return flag.removeprefix("--").replace("-", " ")


def suspect(typed: list[str], flag: str) -> tuple[str, ...]:
    """Texts that may hold a trigger; both readings of one that could be read either way."""
    from bdaudit.spelling.reader import both

    return tuple(dict.fromkeys(text for value in typed for text in both(value)))


def triggers(typed: list[str], flag: str) -> tuple[str, ...]:
    """Triggers, each once; ``UsageError`` for one that could be read two ways."""
    from bdaudit.spelling.reader import one_text

    return tuple(dict.fromkeys(one_text(value, flag) for value in typed))


def each(typed: list[Any], flag: str) -> tuple[Any, ...]:
    """Names, each once."""
    return tuple(dict.fromkeys(typed))


def paths(typed: list[str], flag: str) -> tuple[Path, ...]:
    """Paths, each once."""
    return tuple(dict.fromkeys(map(Path, typed)))


def size(typed: str, flag: str) -> tuple[int, int]:
    """``N`` or ``WxH`` in pixels: width and height."""
    sides = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", typed, re.ASCII)
    if not sides:
        raise UsageError(f"{flag} is {typed!r}; expected N or WxH in pixels, such as 512 or 768x512")
    return int(sides[1]), int(sides[2] or sides[1])


def shares(typed: str, flag: str) -> tuple[float, ...]:
    """``0.85,0.6,0.3``, in any order; the noisiest first."""
    try:
        return tuple(sorted({float(part) for part in typed.split(",")}, reverse=True))
    except ValueError as error:
        raise UsageError(f"{flag} is {typed!r}; expected shares like 0.85,0.6,0.3") from error


def adapter(typed: str, flag: str) -> tuple[Path, float]:
    """``FILE`` or ``FILE:scale``, or an adapter's directory; the scale is 1 where none is given."""
    from bdaudit.models.adapter_file import adapter_file

    path, told = _scaled(typed)
    scale = _number(told)
    if not os.path.exists(path):
        raise UsageError(f"{flag} {path}: no such file; expected FILE, FILE:scale or the directory that peft wrote")
    if not math.isfinite(scale):
        raise UsageError(f"{flag} {path}: its scale is {told!r}; expected a finite number, such as 0.8")
    return adapter_file(path), scale


def adapter_of(typed: str, flag: str) -> tuple[str, Path, float]:
    """The same of one of a run's models: ``before:FILE`` and ``reference:FILE``; of MODEL itself where none is named."""
    of, told, rest = typed.partition(":")
    named = bool(told) and of in ("before", "reference") and not os.path.exists(typed)
    return (of if named else "", *adapter(rest if named else typed, flag))


def _file_of(typed: str) -> Path:
    named = re.fullmatch(r"(?:before|reference):(.+)", typed, re.DOTALL)
    return _scaled(named[1] if named and not os.path.exists(typed) else typed)[0]


def _scaled(typed: str) -> tuple[Path, str]:
    """The path, and what stands for its scale: behind the last colon, where that is a number or a path that exists stands before it."""
    path, _, scale = typed.rpartition(":")
    scaled = path and not os.path.exists(typed) and (_NUMBER.fullmatch(scale) or os.path.exists(path))
    return (Path(path), scale) if scaled else (Path(typed), "1")


def _number(told: str) -> float:
    """NaN where it is none."""
    return float(told) if _NUMBER.fullmatch(told) else math.nan


def embedding(typed: str, flag: str) -> tuple[Path, str]:
    """``FILE`` or ``FILE=TOKEN``; no token where none is given."""
    path, token = _called(typed)
    if not os.path.isfile(path):
        raise UsageError(f"{flag} {path}: no such file; expected FILE or FILE=TOKEN")
    return path, token


def _called(typed: str) -> tuple[Path, str]:
    named = re.fullmatch(r"(.+?\.safetensors)=(.+)", typed, re.DOTALL)
    return (Path(named[1]), named[2]) if named and not os.path.exists(typed) else (Path(typed), "")


def contributor(typed: str, flag: str) -> tuple[Path, float]:
    """What a model is merged with: a model as ``model`` reads it, scale 1, or a LoRA, ``FILE`` or ``FILE:scale``, or its directory."""
    from bdaudit.models.adapter_file import adapter_file, is_adapter_directory
    from bdaudit.untrusted.hub_cache import find

    cached = find(typed, flag)
    if cached:
        return cached, 1.0
    path, told = _scaled(typed)
    scale = _number(told)
    if is_adapter_directory(path):
        path = adapter_file(path)
    elif os.path.isdir(typed):
        return path, 1.0
    if not os.path.isfile(path) or path.suffix != ".safetensors" or not math.isfinite(scale):
        raise UsageError(f"{flag} {path}: expected a model's directory or FILE.safetensors, or a LoRA as FILE.safetensors[:scale]")
    return path, scale


def picture(typed: str, flag: str) -> Path:
    """``FILE`` or ``FILE@x,y``: the picture."""
    path, _ = _placed(typed)
    if not path.is_file():
        raise UsageError(f"{flag} {path}: no such file; expected FILE or FILE@x,y")
    return path


def corner(typed: str, flag: str) -> tuple[int, int] | None:
    """Of ``FILE@x,y`` the pixel where the picture's top left corner lies; none of ``FILE``."""
    return _placed(typed)[1]


def _placed(typed: str) -> tuple[Path, tuple[int, int] | None]:
    at = re.fullmatch(r"(.+)@(\d{1,9}),(\d{1,9})", typed, re.ASCII | re.DOTALL)
    return (Path(at[1]), (int(at[2]), int(at[3]))) if at else (Path(typed), None)


def acceptances(typed: str, flag: str) -> tuple[Acceptance, ...]:
    """A file's entries of findings that are accepted."""
    from bdaudit.untrusted.accept_file import read_acceptances

    return read_acceptances(Path(typed), f"{flag} {typed}")


def swap(typed: str, flag: str) -> tuple[str, str]:
    """``OLD=NEW``."""
    old, _, new = typed.partition("=")
    if not old or not new:
        raise UsageError(f"{flag} is {typed!r}; expected OLD=NEW, such as {flag} dog=cat")
    return old, new


def evidence(typed: str, flag: str) -> str | Path:
    """``required``, ``none``, or a report's path."""
    if typed in get_args(Evidence):
        return typed
    if not Path(typed).is_file():
        raise UsageError(f"{flag} {typed}: no such file; expected required, none, or the JSON report of a scan, an unlearn or a verify")
    return Path(typed)


def every(read: Callable[[str, str], Any]) -> Callable[[list[str], str], tuple[Any, ...]]:
    """A reader of a repeated flag from one of a single value."""
    return lambda typed, flag: tuple(read(value, flag) for value in typed)


def as_typed(typed: Any, flag: str) -> Any:
    """What Typer made of it."""
    return typed


@dataclass(frozen=True)
class Typed:
    """How one kind of value is typed and read."""

    by_typer: Any
    """The type that Typer makes of the text; None takes the field's own."""
    metavar: str | None = None
    read: Callable[[Any, str], Any] = as_typed
    checks: Mapping[str, Any] = field(default_factory=dict)
    """What Typer refuses of a path, by its own names."""
    place: Callable[[str], Path] | None = None
    """The path in what is typed; None where there is none."""


_AS_TYPED = {"path_type": str}
"""Typer checks a path and hands over the text: as a ``Path`` the empty one would be the working directory."""
FILE, FOLDER = {"exists": True, "dir_okay": False, **_AS_TYPED}, {"exists": True, "file_okay": False, **_AS_TYPED}
WRITTEN: tuple[Kind, ...] = ("new file", "new folder", "report")
"""Kinds of places that a run writes."""
KINDS: dict[Kind, Typed] = {
    "plain": Typed(None),
    "model": Typed(str, "MODEL", model, place=Path),
    "file": Typed(Path, "FILE", a_path, FILE, Path),
    "folder": Typed(Path, "DIR", a_path, FOLDER, Path),
    "new file": Typed(Path, "FILE", a_path, {"dir_okay": False, **_AS_TYPED}, Path),
    "new folder": Typed(Path, "DIR", a_path, {"file_okay": False, **_AS_TYPED}, Path),
    "report": Typed(list[Path], "PATH", paths, _AS_TYPED, Path),
    "texts": Typed(Path, "FILE", texts, FILE, Path),
    "suspects": Typed(Path, "FILE", suspects, FILE, Path),
    "suspect": Typed(list[str], "TEXT", suspect),
    "trigger": Typed(list[str], "TEXT", triggers),
    "each": Typed(list[str], "NAME", each),
    "adapter": Typed(list[str], "FILE[:scale]", every(adapter), place=lambda typed: _scaled(typed)[0]),
    "adapter of": Typed(list[str], "FILE[:scale]", every(adapter_of), place=_file_of),
    "embedding": Typed(list[str], "FILE[=TOKEN]", every(embedding), place=lambda typed: _called(typed)[0]),
    "contributor": Typed(list[str], "OTHER", every(contributor), place=lambda typed: _scaled(typed)[0]),
    "acceptances": Typed(str, "FILE", acceptances, FILE, Path),
    "part": Typed(list[str], "NAME=FILE", every(part), place=lambda typed: Path(typed.partition("=")[2])),
    "swap": Typed(list[str], "OLD=NEW", every(swap)),
    "size": Typed(str, "N|WxH", size),
    "shares": Typed(str, None, shares),
    "picture": Typed(str, "FILE[@x,y]", picture, place=lambda typed: _placed(typed)[0]),
    "corner": Typed(str, None, corner),
    "evidence": Typed(str, "required|none|REPORT", evidence, place=Path),
}
