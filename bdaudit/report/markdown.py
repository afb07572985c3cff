"""Content as Markdown, for the summary of a CI job: tables and commands, no picture, and nothing of a report that is markup.

Every text is escaped: what CommonMark, GitHub's tables, formulas, addresses, @names, #numbers and :emoji: are made of stands as itself. An
escape alone does not keep addresses and @names from being linked after the page is made, so an empty comment stands within them.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator

from bdaudit.report.content.blocks import Block, Content, Heading, Line, Next, Plot, Table
from bdaudit.report.safe import inert

MOST_ROWS = 50
"""Rows of a table; a job's summary has room for a megabyte."""
_QUOTES = "'\""
_BREAK = "<!-- -->"
_PUNCTUATION = re.compile(f"[{re.escape(''.join(set(string.punctuation) - set(',%;?:/') - set(_QUOTES)))}]")
_LINKED = re.compile(r"[@#:](?=\S)|www", re.IGNORECASE)


def markdown(content: Content) -> str:
    """The whole of it but details and settings, a line feed at the end."""
    return "\n\n".join(_parts(content)) + "\n"


def escaped(text: str) -> str:
    """``text`` as Markdown that shows it, on one line."""
    pieces = re.split(f"({_LINKED.pattern})", inert(text), flags=re.IGNORECASE)
    return "".join(_PUNCTUATION.sub(r"\\\g<0>", piece) + _BREAK * (at % 2) for at, piece in enumerate(pieces))


def _parts(content: Content) -> Iterator[str]:
    yield f"## bdaudit {escaped(content.command)}: {escaped(content.outcome)}"
    yield from (f"**{escaped(line.text)}**" for line in content.headline)
    yield escaped(content.verdict.text)
    yield escaped(content.advice)
    yield _items(tuple(line for line in content.head if not line.detail))
    for block in content.body:
        yield from _block(block)
    yield "### Coverage"
    yield escaped(content.coverage)
    yield _items(content.limits)
    yield escaped(content.made)


def _items(lines: tuple[Line, ...]) -> str:
    return "\n".join(f"- {escaped(line.text)}" for line in lines)


def _block(block: Block) -> Iterator[str]:
    match block:
        case Line() if not block.detail:
            yield escaped(block.text)
        case Heading():
            yield f"### {escaped(block.text)}"
        case Next():
            yield f"{escaped(block.says)}:"
            yield _fenced(inert(block.command))
        case Table():
            yield from _table(block)
        case Plot() | Line():
            return


def _fenced(command: str) -> str:
    """A block of code that no run of backticks in it ends; an entry of ``--accept`` is JSON and no command."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", command)), default=0))
    return f"{fence}{'json' if command.startswith('{') else 'sh'}\n{command}\n{fence}"


def _table(table: Table) -> Iterator[str]:
    at = [k for k, column in enumerate(table.columns) if column.shown != "in detail"]
    if not at:
        return
    rows = [row for k, row in enumerate(table.rows) if k not in table.details]
    yield f"### {escaped(table.title)}"
    head = [f"| {' | '.join(escaped(table.columns[k].title) for k in at)} |", f"|{'---|' * len(at)}"]
    yield "\n".join([*head, *(f"| {' | '.join('<br>'.join(map(escaped, row[k].lines)) for k in at)} |" for row in rows[:MOST_ROWS])])
    if len(rows) < len(table.rows) or len(rows) > MOST_ROWS:
        yield escaped(f"… and {len(table.rows) - min(len(rows), MOST_ROWS)} more; the JSON and the HTML report list every one")
    yield from map(escaped, table.notes)
