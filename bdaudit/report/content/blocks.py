"""What content is made of: lines, commands, tables and plots, in text that ``visible`` or ``one_line`` has made inert already."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from bdaudit.records import Estimate, NotMeasured
from bdaudit.report.safe import one_line
from bdaudit.report.words import estimate

Tone = Literal["", "good", "warn", "bad", "dim", "strong"]
TONES: dict[str, Tone] = {
    "pass": "good", "finding": "bad", "error": "bad", "refused": "bad", "inconclusive": "warn", "interrupted": "warn",
    "clean": "good", "suspicious": "warn", "backdoored": "bad", "suspicious (accepted)": "dim", "backdoored (accepted)": "warn",
    "does what it says": "warn",
    "passed": "good", "failed": "bad", "undecided": "warn", "not measured": "warn",
}  # fmt: skip
"""Of a run's outcome, a verdict and a check's status."""
Measured = TypeVar("Measured")


@dataclass(frozen=True)
class Line:
    text: str
    tone: Tone = ""
    detail: bool = False
    """Shown only by a renderer that shows everything."""


@dataclass(frozen=True)
class Heading:
    """What the lines below it are about."""

    text: str


@dataclass(frozen=True)
class Next:
    """Something to type, which stays in one piece however long it is."""

    command: str
    says: str = "next"
    """What it is for."""


@dataclass(frozen=True)
class Column:
    title: str
    right: bool = False
    """Set to the right."""
    whole: bool = False
    """Never broken."""
    shown: Literal["always", "where wide", "in detail"] = "always"


@dataclass(frozen=True)
class Cell:
    lines: tuple[str, ...]
    tone: Tone = ""


@dataclass(frozen=True)
class Table:
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    """Below it."""
    details: frozenset[int] = frozenset()
    """Rows that are shown only by a renderer that shows everything."""
    details_are: str = ""
    """What these rows have in common."""


@dataclass(frozen=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True)
class Mark:
    """A point of a plot, in SVG units, and what it says when pointed at."""

    x: float
    y: float
    tone: Tone
    says: str
    label: str = ""
    """What is written beside it; nothing beside most."""


@dataclass(frozen=True)
class Curve:
    """A polyline, in SVG units: ``"x,y x,y"``."""

    points: str
    kind: str
    label: str
    beside: Tick | None = None
    """The same words at their height in the frame, where they stand at the curve itself."""


@dataclass(frozen=True)
class Plot:
    """Everything that an SVG needs; data lies in the frame between ``left`` and ``right``, ``top`` and ``bottom``."""

    title: str
    alt: str
    x_label: str
    y_label: str
    y_ticks: tuple[Tick, ...]
    x_ticks: tuple[Tick, ...]
    marks: tuple[Mark, ...] = ()
    curves: tuple[Curve, ...] = ()
    width: int = 720
    height: int = 280
    left: int = 76
    right: int = 708
    top: int = 30
    bottom: int = 246


Block = Line | Heading | Next | Table | Plot


@dataclass(frozen=True)
class Picture:
    path: str
    says: str
    """What it shows."""
    hidden: bool = False
    """Until somebody asks to see it."""


@dataclass(frozen=True)
class Content:
    """The whole of what is shown, in its order."""

    command: str
    outcome: str
    """The exit's name."""
    verdict: Line
    headline: tuple[Line, ...]
    """Each trigger and its effect."""
    advice: str
    """What the verdict means, and what to do."""
    head: tuple[Line, ...]
    """The model and the machine."""
    body: tuple[Block, ...]
    pictures: tuple[Picture, ...]
    coverage: str
    limits: tuple[Line, ...]
    """What was left out, and what the figures do not say."""
    settings: tuple[tuple[str, tuple[str, ...]], ...]
    """Each by its name; what is a list has an item a line."""
    repeat: str
    """The command line that makes the run again; empty where there was none."""
    made: str
    """By which version, and when."""


@dataclass(frozen=True)
class Below:
    """A cell whose reason is told below the table, once for all cells that give it."""

    reason: str


Figure = str | tuple[str, ...] | Cell | Estimate | NotMeasured | Below
"""What a cell is made of; a tuple is of several lines."""


def figure(value: Measured | NotMeasured, form: Callable[[Measured], str]) -> str | NotMeasured:
    """A measured value in words; one that was not measured is left for ``tables`` to tell."""
    return value if isinstance(value, NotMeasured) else form(value)


def tables(
    title: str, columns: Sequence[str | Column], rows: Iterable[Sequence[Figure]], details: Iterable[int] = (), details_are: str = ""
) -> list[Table]:
    """One table, or none where it would have no rows. ``not measured [1]`` in a cell has its reason below, once for the whole table."""
    marks: dict[str, int] = {}

    def mark(reason: str) -> str:
        return f"[{marks.setdefault(reason, len(marks) + 1)}]"

    def cell(value: Figure) -> Cell:
        match value:
            case Cell():
                return value
            case NotMeasured():
                return Cell((f"not measured {mark(value.reason)}",))
            case Below():
                return Cell((mark(value.reason),))
            case Estimate():
                return Cell((estimate(value),))
            case tuple():
                return Cell(value)
        return Cell((value,))

    cells = tuple(tuple(map(cell, row)) for row in rows)
    typed = tuple(Column(column) if isinstance(column, str) else column for column in columns)
    notes = tuple(f"[{number}] {one_line(reason)}" for reason, number in marks.items())
    return [Table(title, typed, cells, notes, frozenset(details), details_are)] if cells else []
