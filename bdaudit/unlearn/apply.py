"""`unlearn --from-patch`: write the model with a finished patch in it."""

from __future__ import annotations

import time

from bdaudit.config import ApplyConfig
from bdaudit.errors import ExitCode
from bdaudit.measure.envelope import envelope
from bdaudit.progress import Progress, silent
from bdaudit.records import Coverage, Exit, UnlearnReport
from bdaudit.unlearn.outcome import opened, with_digests, write_directory
from bdaudit.unlearn.patchfile import named_triggers, read_patch


def run_apply(config: ApplyConfig, progress: Progress = silent) -> UnlearnReport:
    """Add the patch to the weights; loads no model, and checks the digest alone. The target is known to be free.

    Raises:
        UsageError: the patch is none, or of another model.
        RefusedError, BdauditError: the model cannot be opened safely, or at all.
    """
    assert config.from_patch is not None
    assert config.out is not None
    inspection = opened(config)
    differences, record = read_patch(config.from_patch, inspection.digest, inspection.layout.heeding)
    began = time.monotonic()
    write_directory(inspection, config.out, differences, record)
    said = f"the patch fits the model; wrote {config.out}, not checked here: bdaudit verify measures it"
    report = UnlearnReport(
        **envelope("unlearn", config, inspection),
        status="completed",
        exit=Exit.of(ExitCode.PASS, said),
        timings={"write": time.monotonic() - began},
        coverage=Coverage(asked=0, tested=0, not_looked_at=("the effect of any trigger: a finished patch was applied",)),
        triggers=named_triggers(record),
        method="a finished patch",
    )
    return with_digests(report, inspection, config.out)
