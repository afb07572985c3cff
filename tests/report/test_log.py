"""The package's log as lines, and its stages."""

from __future__ import annotations

import logging

import pytest

from bdaudit.report.log import logged, staged

log = logging.getLogger("bdaudit.anything")


@pytest.mark.parametrize(
    ("quiet", "verbose", "told"),
    [(True, False, ["warning: c"]), (False, False, ["b", "warning: c"]), (False, True, ["a", "b", "warning: c"])],
)
def test_how_much_is_told_and_that_it_ends_with_the_block(quiet: bool, verbose: bool, told: list[str]) -> None:
    lines: list[str] = []
    before = logging.getLogger("bdaudit").level
    heard = log.isEnabledFor(logging.DEBUG)
    with logged(lines.append, quiet=quiet, verbose=verbose):
        for level, text in ((log.debug, "a"), (log.info, "b"), (log.warning, "c")):
            level("%s", text)
    log.warning("after")
    assert [line.rpartition(" s: ")[2].removeprefix("bdaudit: ") for line in lines] == told
    assert all(line.startswith("bdaudit: ") for line in lines)
    assert all((" s: " in line) is verbose for line in lines)
    assert logging.getLogger("bdaudit").level == before
    assert log.isEnabledFor(logging.DEBUG) is heard


def test_what_is_hostile_is_inert() -> None:
    lines: list[str] = []
    with logged(lines.append, quiet=False, verbose=False):
        log.info("loading %s", "a\x1b[31m\nb")
    assert lines == ["bdaudit: loading a<U+001B>[31m b"]


def test_a_stage_begins_once_and_is_done_once_and_the_bars_hear_all() -> None:
    lines: list[str] = []
    heard: list[tuple[str, int, int]] = []
    with logged(lines.append, quiet=False, verbose=True):
        told = staged(lambda *at: heard.append(at))
        for at in (("draw · 1 s", 0, 2), ("draw · 2 s", 1, 2), ("draw", 2, 2), ("draw", 2, 2), ("solve", 0, 0)):
            told(*at)
    assert [line.rpartition(" s: ")[2] for line in lines][0::2] == ["draw (2): begins", "solve: begins"]
    assert "draw: done in " in lines[1]
    assert len(heard) == 5
