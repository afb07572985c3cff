"""The three verbs, told apart by their config. Each is imported, and torch with it, only when it runs."""

from __future__ import annotations

from bdaudit.config import RunConfig, ScanConfig, UnlearnConfig, VerifyConfig
from bdaudit.progress import Progress
from bdaudit.records import Report

Config = ScanConfig | UnlearnConfig | VerifyConfig


def carried_out(config: Config, progress: Progress) -> Report:
    """The report of the run that ``config`` asks for."""
    if isinstance(config, ScanConfig):
        from bdaudit.scan.run import run_scan

        return run_scan(config, progress)
    if isinstance(config, UnlearnConfig):
        from bdaudit.unlearn.run import run_unlearn

        return run_unlearn(config, progress)
    from bdaudit.verify.rejudge import run_verify

    return run_verify(config, progress)


def lacking(config: RunConfig) -> tuple[str, ...]:
    """What that run will lack on this machine, a sentence each; loads no weights."""
    if not isinstance(config, VerifyConfig):
        return ()
    from bdaudit.verify.preflight import lacking as of_verify

    return of_verify(config)
