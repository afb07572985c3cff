"""The same pictures under other bounds: the figures of the run before stand, and the checks alone are made anew.

Nothing heavy is imported on that way, so a gate that a team tightens costs seconds. The figures lie beside the pictures in the state
directory, named by everything that they depend on; a model, a grader or a library that changed is measured again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from bdaudit.config import VerifyConfig
from bdaudit.errors import BdauditError, UsageError
from bdaudit.measure.envelope import model_record, run_key, settings
from bdaudit.measure.opening import inspected
from bdaudit.pipeline.inspect import Inspection
from bdaudit.progress import Progress, silent
from bdaudit.report.document import dumps, loads, write_whole
from bdaudit.report.records import VerifyReport

BOUNDS = ("max_asr", "min_clip_score", "max_kid", "max_fid", "min_clip_ratio", "max_distance", "policy")
"""Settings that decide, and measure nothing."""
_PLACES = ("model", "before", "reference", "target_image", "clip", "save_images", "state")
"""Settings that are paths; what lies there counts, not its name."""
_LIBRARIES = ("torch", "diffusers", "transformers", "open_clip_torch", "torchmetrics")


def run_verify(config: VerifyConfig, progress: Progress = silent) -> VerifyReport:
    """``bdaudit.verify.run.run_verify``, or the figures that it kept, held against these bounds.

    Raises:
        BdauditError: as there.
    """
    began = time.perf_counter()
    if config.state is not None and _lasting(config) and any(config.state.glob("figures-*.json")):
        inspections = [inspected(config, path) for path in config.models]
        found = _kept(_place(config, config.state, [inspection.digest for inspection in inspections]))
        if found is not None:
            return _judged(config, found, inspections[0], began)
    from bdaudit.verify.run import run_verify as measured

    return measured(config, progress)


def keep(config: VerifyConfig, report: VerifyReport, digests: Sequence[str]) -> None:
    """Keep a finished report's figures for the next run; ``digests`` are of the models that were measured, in their order.

    Raises:
        BdauditError: the disk refuses.
    """
    if config.state is None or not _lasting(config):
        return
    try:
        write_whole(_place(config, config.state, digests), dumps(report).encode("ascii"))
    except OSError as error:
        raise BdauditError(f"--state {config.state} cannot be written: {error}") from error


def _lasting(config: VerifyConfig) -> bool:
    """Whether what the figures depend on is told in seconds: a folder of pictures, a hub's grader, Inception's weights are not."""
    quick = config.real_images is None and config.clip.startswith("local-dir:") and find_spec("torch_fidelity") is None
    return quick and config.save_images is None


def _kept(place: Path) -> VerifyReport | None:
    """The report in ``place``; None where there is no whole one. A link is not followed."""
    try:
        kept = None if place.is_symlink() else loads(place.read_bytes())
    except (OSError, UsageError):
        return None
    return kept if isinstance(kept, VerifyReport) and kept.status == "completed" else None


def _judged(config: VerifyConfig, kept: VerifyReport, inspection: Inspection, began: float) -> VerifyReport:
    from bdaudit.verify.checks import all_checks, outcome

    checks = all_checks(config, kept.attacks, kept.metrics)
    return replace(
        kept,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        model=model_record(config, inspection),
        config=settings(config),
        exit=outcome(config, kept.attacks, checks),
        checks=checks,
        pictures={"drawn": 0, "reused": sum(kept.pictures.values()) - kept.pictures["damaged"], "damaged": 0},
        timings={"recall": round(time.perf_counter() - began, 3)},
    )


def _place(config: VerifyConfig, state: Path, digests: Sequence[str]) -> Path:
    """The file of the figures, named by everything that they depend on."""
    asked = {name: value for name, value in settings(config).items() if name not in (*BOUNDS, *_PLACES)}
    asked["roles"] = [role for role in ("before", "reference") if getattr(config, role)]  # whose the further digests are
    asked["libraries"] = [version(name) for name in _LIBRARIES]
    handed = config.evidence if isinstance(config.evidence, Path) else None
    read = (config.target_image, handed, Path(config.clip.removeprefix("local-dir:")))
    asked["files"] = ["".join(_digests(place)) for place in read if place]
    return state / f"figures-{run_key('verify', asked, ' '.join(digests))[:32]}.json"


def _digests(place: Path) -> Iterator[str]:
    for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
        if path.is_file():
            with path.open("rb") as file:
                yield f"{path.relative_to(place)} {hashlib.file_digest(file, 'sha256').hexdigest()}\n"
