"""`unlearn` from directory to directory: the targets are free, and the job that the config is of gets to work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bdaudit.config import ApplyConfig, CleanConfig, MergeConfig, RepairConfig, UnlearnConfig
from bdaudit.progress import Progress, silent
from bdaudit.records import UnlearnReport
from bdaudit.targets import try_written
from bdaudit.unlearn.apply import run_apply
from bdaudit.unlearn.clean.run import run_cleaning
from bdaudit.unlearn.merging.run import run_merge
from bdaudit.unlearn.repair.run import run_repair

JOBS: dict[type[UnlearnConfig], Callable[[Any, Progress], UnlearnReport]] = {
    RepairConfig: run_repair,
    ApplyConfig: run_apply,
    MergeConfig: run_merge,
    CleanConfig: run_cleaning,
}


def run_unlearn(config: UnlearnConfig, progress: Progress = silent) -> UnlearnReport:
    """Remove the triggers from the model and write the repaired one; or merge or clean it, or apply a finished patch.

    Raises:
        UsageError: a target is not free, or cannot be made; and what the job raises.
    """
    try_written(config.written)
    return JOBS[type(config)](config, progress)
