"""The figures of a finished run, beside its pictures in the state directory, named by everything that they depend on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from bdaudit import state_home
from bdaudit.config import VerifyConfig
from bdaudit.errors import BdauditError, UsageError
from bdaudit.measure.envelope import run_key, settings
from bdaudit.records import VerifyReport
from bdaudit.report.document import MAX_BYTES, dumps, loads
from bdaudit.targets import write_whole
from bdaudit.untrusted.open_file import read_file, sha256
from bdaudit.verify.policy import BOUNDS

_PLACES = ("model", "prompts_file", "before", "reference", "target_image", "clip", "save_images", "state", "policy", "workers")
"""Settings that are paths, of which what lies there counts and not the name; and how many draw, which changes no figure."""
_LIBRARIES = ("open_clip_torch", "torchmetrics")
"""Of grading."""


def keep(config: VerifyConfig, report: VerifyReport, digests: Sequence[str]) -> None:
    """Keep a finished report's figures for the next run; ``digests`` are of the models that were measured, in their order.

    Raises:
        BdauditError: the disk refuses.
    """
    if config.state is None or state_home.is_kept_here(config.state) or not lasting(config):
        return  # in the user's cache nothing outlives the run
    try:
        write_whole(place_of(config, config.state, digests), dumps(report).encode("ascii"))
    except OSError as error:
        raise BdauditError(f"--state {config.state} cannot be written: {error}") from error


def lasting(config: VerifyConfig) -> bool:
    """Whether what the figures depend on is told in seconds: pictures, adapters, a hub's grader, Inception's weights are not."""
    added = bool(config.adapters or config.embeddings)
    quick = not added and config.real_images is None and config.clip.startswith("local-dir:") and find_spec("torch_fidelity") is None
    return quick and config.save_images is None


def kept(place: Path) -> VerifyReport | None:
    """The report in ``place``; None where there is no whole one. A link is not followed."""
    try:
        report = loads(read_file(place, str(place), MAX_BYTES, follow=False))
    except UsageError:
        return None
    return report if isinstance(report, VerifyReport) and report.status == "completed" else None


def place_of(config: VerifyConfig, state: Path, digests: Sequence[str]) -> Path:
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
            yield f"{path.relative_to(place)} {sha256(path, str(path))}\n"
