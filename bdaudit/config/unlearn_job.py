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
from bdaudit.config.unlearn import UnlearnConfig
from bdaudit.errors import UsageError

JOBS: dict[type[UnlearnConfig], str] = {
    RepairConfig: "the removal of named triggers",
    ApplyConfig: "a finished patch (--from-patch)",
    MergeConfig: "a merge (--merge-with)",
    CleanConfig: "a cleaning (--method cleanclip)",
}
"""Each job, and what it is called in a message."""
_ASKED_BY: dict[type[UnlearnConfig], str] = {MergeConfig: "--merge-with OTHER", CleanConfig: "--method cleanclip"}
"""What to type for a job."""
_FLAGS = {name: flag.name for job in JOBS for name, flag in flags(job).items()}


def unlearn_config(settings: Mapping[str, Any], state: Path | None = None) -> UnlearnConfig:
    """The config of the job that ``settings``, by field, ask for; ``None`` among them says nothing, a default that was typed does.

    ``state`` is where a job that keeps one does so if the settings do not say.

    Raises:
        UsageError: one of them has no part in that job, or is wrong.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    job = _asked(given)
    if job is CleanConfig:
        del given["method"]
    for name in given:
        if name not in _fields(job):
            raise UsageError(_no_part(name, job, given))
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


def _no_part(name: str, job: type[UnlearnConfig], given: Mapping[str, Any]) -> str:
    cleans = name == "method" and given[name] == "cleanclip"
    others = [CleanConfig] if cleans else [other for other in JOBS if name in _fields(other)]
    said = f"{_FLAGS[name]}{' cleanclip' * cleans} goes with {' and '.join(JOBS[other] for other in others)}"
    if job is RepairConfig and not {"triggers", "from_report"} & given.keys():
        return f"{said}, and nothing asks for that; say {_ASKED_BY[others[0]]} too"
    return f"{said}, and has no part in {JOBS[job]}; drop one of the two"
