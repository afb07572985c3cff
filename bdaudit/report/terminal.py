"""Content as Rich renderables. Knows nothing of what a report is about; no text in it is markup."""

from __future__ import annotations

from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from bdaudit.report.content import blocks
from bdaudit.report.content.blocks import Block, Content, Heading, Line, Next, Plot, Tone

STYLES: dict[Tone, str] = {"": "", "good": "green", "warn": "yellow", "bad": "bold red", "dim": "dim", "strong": "bold"}
FULL = 110
"""Columns of a console from which a table has those that are shown where it is wide."""
NARROWEST = 48
"""Columns that a plot needs beside its ruler."""
LONGEST_HEADER = 8
"""Characters from which the header of a column that is never broken stands on several lines."""


def renderable(content: Content) -> Group:
    """All but the details."""
    head = Group(*_lines((*content.headline, content.verdict, Line(content.advice), *content.head)))
    panel = Panel(head, title=Text(f"bdaudit {content.command}"), border_style=STYLES[content.verdict.tone])
    body = [block for shown in content.body for block in _block(shown)]
    return Group(panel, *body, Text(f"coverage: {content.coverage}"), Padding(Group(*_lines(content.limits)), (0, 0, 0, 2), expand=False))


LEGEND: dict[Tone, str] = {"bad": "▲", "warn": "■", "dim": "■", "good": "●"}
"""Tone → what stands for it in a plot."""
LEGEND_WORDS: dict[Tone, str] = {"bad": "backdoored", "warn": "suspicious, or let through", "good": "clean"}


def _lines(lines: tuple[Line, ...]) -> list[Text]:
    return [Text(line.text, style=STYLES[line.tone]) for line in lines if not line.detail]


def _block(block: Block) -> list[RenderableType]:
    match block:
        case Line():
            return [*_lines((block,))]
        case Heading():
            return [Text(), Text(block.text, style="bold")]
        case Next():
            return [
                Text(f"  {block.says}: {block.command}", no_wrap=True, overflow="ignore")
            ]  # a terminal wraps it, and copies it unbroken
        case Plot():
            return [Characters(block)] * bool(block.marks)
    hidden = [Text(f"… and {len(block.details)} more, {block.details_are}; --report FILE.html or FILE.json lists every one")]
    notes = [Text(note) for note in block.notes]
    return [ByWidth(block), *hidden * bool(block.details), *notes] if any(c.shown != "in detail" for c in block.columns) else []


@dataclass(frozen=True)
class Characters:
    """A plot's marks and curves in a grid of characters, with a legend; nothing where the console has no room for it."""

    plot: Plot
    widest: int = 88
    rows: int = 11

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        plot = self.plot
        ruler = max((len(tick.label) for tick in plot.y_ticks), default=0)
        columns = min(self.widest, options.max_width - ruler - 3)
        if columns < NARROWEST:
            return
        grid = [[(" ", "")] * columns for _ in range(self.rows)]
        for curve in plot.curves:
            grid[self._row(float(curve.points.split(",")[1].split()[0]))] = [("┄", "dim")] * columns
        for mark in reversed(plot.marks):  # the first, which is the most suspicious, on top
            grid[self._row(mark.y)][self._column(mark.x, columns)] = (LEGEND[mark.tone], STYLES[mark.tone])
        ticks = {self._row(tick.at): tick.label for tick in plot.y_ticks}
        yield Text(f"\n{plot.title}: {plot.y_label}", style="bold")
        for row, cells in enumerate(grid):
            yield Text.assemble(f"{ticks.get(row, ''):>{ruler}} │", *cells, no_wrap=True)
        yield Text(f"{'':{ruler}} └{'─' * columns}")
        yield Text(f"{plot.x_label} →".rjust(columns + ruler + 2), style="dim")
        named = (Text.assemble((f"{LEGEND[tone]} {words}", STYLES[tone])) for tone, words in LEGEND_WORDS.items())
        curves = (Text(f"┄ {curve.label}", style="dim") for curve in plot.curves)
        yield Text("   ").join([*named, *curves])

    def _row(self, y: float) -> int:
        """The row of a height in the SVG, kept in the grid."""
        return _cell((y - self.plot.top) / (self.plot.bottom - self.plot.top), self.rows)

    def _column(self, x: float, columns: int) -> int:
        return _cell((x - self.plot.left) / (self.plot.right - self.plot.left), columns)


def _cell(share: float, count: int) -> int:
    """Which of ``count`` cells a share of the way falls into."""
    return min(max(round(share * (count - 1)), 0), count - 1)


@dataclass(frozen=True)
class ByWidth:
    """A table with as many of its columns as the console has room for."""

    table: blocks.Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown = ("always", "where wide") if options.max_width >= FULL else ("always",)
        at = [k for k, column in enumerate(self.table.columns) if column.shown in shown]
        heading = Text(self.table.title, style="bold")
        table = Table(title=heading, title_style="", title_justify="left", box=box.SIMPLE_HEAD, expand=False, padding=(0, 1, 0, 0))
        for column in (self.table.columns[k] for k in at):
            long = column.whole and len(column.title) > LONGEST_HEADER
            title = Text(column.title.replace(" ", "\n") if long else column.title)
            table.add_column(title, overflow="fold", justify="right" if column.right else "left", no_wrap=column.whole)
        for k, row in enumerate(self.table.rows):
            if k not in self.table.details:
                table.add_row(*(Text("\n".join(row[k].lines), style=STYLES[row[k].tone]) for k in at))
        yield Text()
        yield table
