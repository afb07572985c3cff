"""The same pictures under other bounds: the figures of the run before stand, and the checks alone are made anew.

Nothing heavy is imported on that way, so a gate that a team tightens costs seconds. A model, a grader or a library that changed is
measured again.
"""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime

from bdaudit.config import VerifyConfig
from bdaudit.measure.envelope import model_record, settings
from bdaudit.measure.opening import inspected
from bdaudit.progress import Progress, silent
from bdaudit.records import VerifyReport
from bdaudit.untrusted.inspect import Inspection
from bdaudit.verify.kept_figures import kept, lasting, place_of


def run_verify(config: VerifyConfig, progress: Progress = silent) -> VerifyReport:
    """``bdaudit.verify.run.run_verify``, or the figures that it kept, held against these bounds.

    Raises:
        BdauditError: as there.
    """
    began = time.perf_counter()
    if config.state is not None and lasting(config) and any(config.state.glob("figures-*.json")):
        inspections = [inspected(config, path) for path in config.models]
        found = kept(place_of(config, config.state, [inspection.digest for inspection in inspections]))
        if found is not None:
            return _judged(config, found, inspections[0], began)
    from bdaudit.verify.run import run_verify as measured

    return measured(config, progress)


def _judged(config: VerifyConfig, before: VerifyReport, inspection: Inspection, began: float) -> VerifyReport:
    from bdaudit.verify.checks import all_checks, outcome

    checks = all_checks(config, before.attacks, before.metrics)
    return replace(
        before,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        model=model_record(config, inspection),
        config=settings(config),
        exit=outcome(config, before.attacks, checks),
        checks=checks,
        pictures={"drawn": 0, "reused": sum(before.pictures.values()) - before.pictures["damaged"], "damaged": 0},
        timings={"recall": round(time.perf_counter() - began, 3)},
    )
