"""Which job of ``bdaudit unlearn`` a command line asks for: decided here alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from bdaudit.config.apply import ApplyConfig
from bdaudit.config.clean import CleanConfig
from bdaudit.config.flag import flags
from bdaudit.config.merge import MergeConfig
from bdaudit.config.repair import RepairConfig
from bdaudit.config.run import need
from bdaudit.config.unlearn import UnlearnConfig

JOBS: dict[type[UnlearnConfig], str] = {
    RepairConfig: "the removal of named triggers (--trigger, --from-report)",
    ApplyConfig: "a finished patch (--from-patch)",
    MergeConfig: "a merge (--merge-with)",
    CleanConfig: "a cleaning (--method cleanclip)",
}
"""Each job, and what it is called in a message."""
_DEFAULTS = {field.name: field.default for job in JOBS for field in fields(job)}
_FLAGS = {name: flag.name for job in JOBS for name, flag in flags(job).items()}


def unlearn_config(settings: Mapping[str, Any], state: Path | None = None) -> UnlearnConfig:
    """The config of the job that ``settings``, by field, ask for; a default among them says nothing.

    ``state`` is where a job that keeps one does so if the settings do not say.

    Raises:
        UsageError: one of them has no part in that job, or is wrong.
    """
    given = {name: value for name, value in settings.items() if value != _DEFAULTS[name]}
    job = _asked(given)
    if job is CleanConfig:
        del given["method"]
    for name in given:
        need(name in _fields(job), _no_part(name, job))
    if "state" in _fields(job):
        given.setdefault("state", state)
    return job(**given)


def _fields(job: type[UnlearnConfig]) -> set[str]:
    return {field.name for field in fields(job)}


def _asked(given: Mapping[str, Any]) -> type[UnlearnConfig]:
    if "from_patch" in given:
        return ApplyConfig
    if "merge_with" in given:
        return MergeConfig
    return CleanConfig if given.get("method") == "cleanclip" else RepairConfig


def _no_part(name: str, job: type[UnlearnConfig]) -> str:
    others = " and ".join(said for other, said in JOBS.items() if name in _fields(other))
    return f"{_FLAGS[name]} goes with {others}, and has no part in {JOBS[job]}; drop one of the two"
