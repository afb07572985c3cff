"""``--once``: a mark beside a run's reports, by which the same command leaves at once when it is run again.

A scheduler runs a job again whose machine went away, or a whole array for one job that failed. The mark names the run by the digests of
the models, the weights beside them that nobody looks at, all other files that it reads, its settings and the versions, and its reports by
their SHA-256: whatever of these has changed, an acceptance has run out, or another run has found something of the model, the run is made
anew. A run that was interrupted, or ended in an error, leaves none, nor does one whose model was exchanged while it was at work.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from bdaudit.config import ALL_VARIANTS, RunConfig
from bdaudit.errors import BdauditError, ExitCode, UsageError
from bdaudit.measure.envelope import run_key, settings
from bdaudit.measure.opening import inspected, variants_in
from bdaudit.records import Exit, ModelRecord, Report
from bdaudit.targets import write_whole
from bdaudit.untrusted.formats.addition import SETTINGS
from bdaudit.untrusted.inspect import Inspection
from bdaudit.untrusted.open_file import read_json, sha256
from bdaudit.untrusted.tree import Reader, walk

SUFFIX = ".done"
"""What the mark's name has beside the first report's."""
_LIMITS = (1 << 16, 1_000)


@dataclass(frozen=True)
class Mark:
    """Of one run."""

    key: str
    """SHA-256 that names it; empty where a model or a file cannot be read, and the run will say so."""
    reports: tuple[Path, ...]
    models: tuple[str, ...] = ()
    """Digests of the models, each variant's that is to be audited."""
    kept: Path | None = None
    """Where ``--keep`` has what runs found."""
    whose: tuple[str, ...] = ("",)
    """How the names of those begin that speak of these models."""

    @property
    def place(self) -> Path:
        """Beside the first report."""
        return self.reports[0].with_name(self.reports[0].name + SUFFIX)

    def ended(self) -> Exit | None:
        """How the run ended, where its reports lie there whole; None where it is to be made."""
        try:
            said = read_json(self.place, str(self.place), _LIMITS, follow=False)
            if not self.key or said["key"] != self.key or said["reports"] != self._there() or said["found"] != self._found():
                return None
            return Exit.of(ExitCode(said["code"]), f"{str(said['reason'])[:2000]}; done before, nothing was run")
        except (BdauditError, KeyError, TypeError, ValueError):
            return None

    def leave(self, report: Report, ended: Exit) -> None:
        """Mark the run as done, where it is, of the models that were there before it; called once its reports lie there."""
        came_to_its_end = report.status == "completed" and ended.code in (ExitCode.PASS, ExitCode.FINDING, ExitCode.INCONCLUSIVE)
        if self.key and came_to_its_end and isinstance(report.model, ModelRecord) and report.model.digest in self.models:
            value = {"key": self.key, "code": ended.code, "reason": ended.reason, "reports": self._there(), "found": self._found()}
            write_whole(self.place, json.dumps(value).encode("ascii"))

    def _there(self) -> list[str]:
        return [sha256(path, str(path)) for path in self.reports]

    def _found(self) -> list[str]:
        """Names of what runs found of the models and ``--keep`` has; a name has the content's digest in it."""
        names = (path.name for path in self.kept.glob("*.json")) if self.kept else ()
        return sorted(name for name in names if name.startswith(self.whose))


def mark_of(command: str, config: RunConfig, reports: Sequence[Path], opened: Sequence[tuple[str, Path]], *, drawn: bool) -> Mark:
    """The mark of a run; ``opened`` has the files and folders that it reads, models aside, ``drawn``: nobody typed its seed."""
    asked = {name: value for name, value in settings(config).items() if name != "workers" and not (drawn and name == "seed")}
    try:
        seen = [each for model in config.models for each in _inspected(config, model)]
        files = [[flag, _digest(path)] for flag, path in (*opened, *_beside(config))]
    except BdauditError:
        return Mark("", tuple(reports))
    beside = [[left.path, left.reason, left.variant] for each in seen for left in each.unaudited]
    models = tuple(each.digest for each in seen)
    key = run_key(command, asked | {"files": files, "unaudited": beside, "accepted": _accepted(config)}, "\n".join(models))
    return Mark(_keyed(key, getattr(config, "seed_from", "")), tuple(reports), models, *_kept(config, models))


def _keyed(key: str, variable: str) -> str:
    """A key that follows from the secret, too, that ``--seed-from`` names, and tells nobody what it is."""
    secret = os.environ.get(variable, "")
    return hmac.new(secret.encode("utf-8", "surrogateescape"), key.encode("ascii"), hashlib.sha256).hexdigest()


def _kept(config: RunConfig, models: tuple[str, ...]) -> tuple[Path | None, tuple[str, ...]]:
    """Where findings lie that stand, and how their names begin; with an adapter or embedding, that of any model."""
    from bdaudit.scan.earlier import FOLDER

    added = getattr(config, "adapters", ()) or getattr(config, "embeddings", ())
    keep: Path | None = getattr(config, "keep", None)
    return (keep / FOLDER if keep else None), ("",) if added else models


def _inspected(config: RunConfig, model: Path) -> list[Inspection]:
    """A model as it would be loaded, or each of its variants."""
    each = variants_in(model) if config.variant == ALL_VARIANTS and model == config.model else ()
    if not each:
        return [inspected(config, model)]
    return [inspected(replace(config, variant=name), model) for name in each]


def _beside(config: RunConfig) -> list[tuple[str, Path]]:
    """Settings that lie beside adapters and are read with them."""
    added: tuple[Any, ...] = (*getattr(config, "adapters", ()), *getattr(config, "merge_with", ()))
    return [("beside an adapter", path.with_name(SETTINGS)) for *_, path, _ in added]


def _accepted(config: RunConfig) -> list[bool]:
    """Which entries of ``--accept`` hold today."""
    return [entry.last_day >= today() for entry in getattr(config, "accept", ())]


def today() -> date:
    """As a scan has it."""
    return datetime.now(UTC).date()


def _digest(path: Path) -> str:
    """SHA-256 of a file, or a folder's names and theirs; empty where nothing is there."""
    if not path.exists():
        return ""
    if not path.is_dir():
        return sha256(path, str(path))
    root = path.resolve()
    files = walk(root).files
    reader = Reader(root, files)
    return json.dumps({name: reader.sha256(name) for name in files}, sort_keys=True)


def check_once(reports: Sequence[Path], *, stdout_too: bool) -> None:
    """Raises ``UsageError`` where nothing would say that the run was made, or stdout would lack what it promises."""
    if not reports or stdout_too:
        said = "stdout has no report of a run that is not made; drop --json or --format" if stdout_too else "give --report FILE"
        raise UsageError(f"--once looks for the reports of the run before: {said}")
