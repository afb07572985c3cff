"""Lines where there is no terminal, bars where there is one."""

from __future__ import annotations

import io

from rich.console import Console

from bdaudit.report.progress import plain, progress_on


def test_a_plain_line_at_most_every_half_minute() -> None:
    now, lines = [0.0], list[str]()
    progress = plain(lines.append, clock=lambda: now[0])
    for second in range(0, 100, 10):
        now[0] = float(second)
        progress("probing \x1b[1m", second, 100)
    assert lines == [f"bdaudit: probing <U+001B>[1m {second}/100" for second in (30, 60, 90)]


def test_a_stage_without_a_total_says_how_far_it_is() -> None:
    now, lines = [0.0], list[str]()
    progress = plain(lines.append, clock=lambda: now[0])
    now[0] = 31.0
    progress("listing", 5, 0)
    assert lines == ["bdaudit: listing 5"]


def test_a_terminal_gets_a_bar_and_quiet_does_not() -> None:
    for quiet, shown in ((False, True), (True, False)):
        stream = io.StringIO()
        with progress_on(Console(file=stream, force_terminal=True, width=100), quiet=quiet) as progress:
            progress("probing [red]", 1, 4)
            progress("probing [red]", 4, 4)
        assert ("probing [red]" in stream.getvalue()) is shown
        assert ("4/4" in stream.getvalue()) is shown


def test_a_pipe_gets_no_bar() -> None:
    stream = io.StringIO()
    with progress_on(Console(file=stream, width=100)) as progress:
        progress("probing", 1, 4)
    assert stream.getvalue() == ""


def test_what_changes_about_a_stage_makes_no_new_bar() -> None:
    stream = io.StringIO()
    with progress_on(Console(file=stream, force_terminal=True, width=100)) as progress:
        progress("screening · 3.5 texts a second · 2 workers", 1, 4)
        progress("screening · 4 texts a second · 1 worker", 4, 4)
    last = stream.getvalue().rpartition("screening")[2]
    assert "1 worker" in last
    assert "2 workers" not in last
    assert stream.getvalue().rstrip().count("4/4") >= 1
