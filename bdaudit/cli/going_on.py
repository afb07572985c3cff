"""What a run says of where it stands: that it begins, that it can go on, and what becomes of what it kept."""

from __future__ import annotations

import logging
from pathlib import Path

from bdaudit import state_home, state_lock
from bdaudit.cli.verbs import Config
from bdaudit.errors import BdauditError, ExitCode
from bdaudit.progress import amount
from bdaudit.records import Report
from bdaudit.untrusted.tree import walk

log = logging.getLogger(__name__)

_UNFINISHED = (ExitCode.INTERRUPTED, ExitCode.ERROR)
"""Ends after which the same command goes on."""


def begin(config: Config) -> None:
    """A line before the first bar: to hash a model takes a while."""
    others = f" and {len(config.models) - 1} more" if len(config.models) > 1 else ""
    log.info("inspecting %s%s, %s of weights", config.model, others, amount(sum(map(_weights, config.models))))
    state: Path | None = getattr(config, "state", None)
    if state is not None and _holds_something(state):
        log.info("going on from what an earlier run left in %s, if it was of the same model", state)


def _weights(model: Path) -> int:
    """Bytes of its safetensors, as a bounded walk lists them; what is wrong with it is the run's to say."""
    if model.is_file():
        return model.stat().st_size
    try:
        files = walk(model.resolve()).files
    except BdauditError:
        return 0
    return sum(size for path, size in files.items() if path.count("/") == 1 and path.endswith(".safetensors"))


def to_go_on(report: Report, config: Config) -> str:
    """That a run that was interrupted, or failed on its way, goes on by its command, where anything of it is kept."""
    state: Path | None = getattr(config, "state", None) or getattr(config, "keep", None)
    written = getattr(report, "out", "") or getattr(report, "patch", "")  # the result is whole, and there is nothing left to do
    if report.exit.code not in _UNFINISHED or written or state is None or not _holds_something(state):
        return ""
    days = f" for {state_home.DAYS} days" if state_home.is_kept_here(state) else ""
    return f"repeat the command to go on, what was measured is kept in {state}{days}"


def _holds_something(state: Path) -> bool:
    return state.is_dir() and any(path.name != state_lock.LOCK for path in state.iterdir())


def clear(report: Report, config: Config) -> None:
    """Of a run that came to its end, on each variant that it was to look at, what it kept in the user's cache."""
    state: Path | None = getattr(config, "state", None)
    whole = report.status == "completed" and not any(run.code in _UNFINISHED for run in report.variants)
    if state is not None and state_home.is_kept_here(state) and whole:
        state_home.clear(state)
