"""Progress on stderr: a bar with an ETA on a terminal, a plain line every half minute elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from bdaudit.progress import MORE, Progress
from bdaudit.report.safe import one_line

EVERY = 30.0
"""Seconds between plain lines."""


@contextmanager
def progress_on(console: Console, *, quiet: bool = False) -> Iterator[Progress]:
    """A ``Progress`` that shows itself on ``console``, which is stderr's."""
    if quiet or not console.is_terminal:
        yield plain(lambda line: console.print(Text(line), soft_wrap=True))
        return
    with _bars(console) as bars:
        yield on_bars(bars)


def plain(emit: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> Progress:
    """One line whenever ``EVERY`` seconds have passed since the last one; ``emit`` prints it."""
    last = clock()

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal last
        if clock() - last >= EVERY:
            last = clock()
            emit(f"bdaudit: {one_line(stage)} {done}/{total}" if total else f"bdaudit: {one_line(stage)} {done}")

    return progress


def on_bars(bars: Bars) -> Progress:
    """One bar a stage, added when the stage is first heard of."""
    tasks: dict[str, TaskID] = {}

    def progress(stage: str, done: int, total: int) -> None:
        name = stage.partition(MORE)[0]
        if name not in tasks:
            tasks[name] = bars.add_task(one_line(stage), total=total or None)
        bars.update(tasks[name], description=one_line(stage), completed=done, total=total or None)

    return progress


def _bars(console: Console) -> Bars:
    return Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        redirect_stdout=False,
        redirect_stderr=False,
    )
