"""What a run was given, said back as it was understood, before any work: a line a text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bdaudit.records import NotMeasured, UnderstoodText
from bdaudit.report.safe import one_line
from bdaudit.report.words import short
from bdaudit.spelling.points import listed

MOST_IDS = 32


def echo_lines(texts: Iterable[UnderstoodText]) -> list[str]:
    """``trigger <U+200B>: 1 character, U+200B ZERO WIDTH SPACE; 1 vocabulary entry (token ids 2271)``."""
    return [_line(item) for item in texts]


def _line(item: UnderstoodText) -> str:
    names = listed(item.names) or "all plain ASCII"
    return f"{item.what} {short(item.text)}: {_counted(len(item.text), 'character')}, {names}; {_encoded(item.token_ids)}"


def _encoded(ids: Sequence[int] | NotMeasured) -> str:
    if isinstance(ids, NotMeasured):
        return f"vocabulary entries not known: {one_line(ids.reason)}"
    shown = " ".join(map(str, ids[:MOST_IDS])) + (f" … +{len(ids) - MOST_IDS}" if len(ids) > MOST_IDS else "")
    return f"{_counted(len(ids), 'vocabulary entry')} (token ids {shown})" if ids else "no vocabulary entry: the tokenizer drops all of it"


def _counted(n: int, what: str) -> str:
    several = f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    return f"{n} {what if n == 1 else several}"
