"""``--once``: a mark beside a run's reports, by which the same command leaves at once when it is run again.

A scheduler runs a job again whose machine went away, or a whole array for one job that failed. The mark names the run by the digests of
the models and of all other files that it reads, its settings and the versions, and its reports by their SHA-256: whatever of these has
changed, the run is made anew. A run that was interrupted, or ended in an error, leaves none.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bdaudit.config import RunConfig
from bdaudit.errors import BdauditError, ExitCode, UsageError
from bdaudit.measure.envelope import run_key, settings
from bdaudit.measure.opening import inspected
from bdaudit.records import Exit, Report
from bdaudit.targets import write_whole
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

    @property
    def place(self) -> Path:
        """Beside the first report."""
        return self.reports[0].with_name(self.reports[0].name + SUFFIX)

    def ended(self) -> Exit | None:
        """How the run ended, where its reports lie there whole; None where it is to be made."""
        try:
            said = read_json(self.place, str(self.place), _LIMITS, follow=False)
            there = {path.name: sha256(path, str(path)) for path in self.reports}
            if not self.key or said["key"] != self.key or said["reports"] != there:
                return None
            return Exit.of(ExitCode(said["code"]), f"{str(said['reason'])[:2000]}; done before, nothing was run")
        except (BdauditError, KeyError, TypeError, ValueError):
            return None

    def leave(self, report: Report, ended: Exit) -> None:
        """Mark the run as done, where it is; called once its reports lie there."""
        if self.key and report.status == "completed" and ended.code in (ExitCode.PASS, ExitCode.FINDING, ExitCode.INCONCLUSIVE):
            reports = {path.name: sha256(path, str(path)) for path in self.reports}
            value = {"key": self.key, "code": ended.code, "reason": ended.reason, "reports": reports}
            write_whole(self.place, json.dumps(value).encode("ascii"))


def mark_of(command: str, config: RunConfig, reports: Sequence[Path], opened: Sequence[tuple[str, Path]], *, drawn: bool) -> Mark:
    """The mark of a run; ``opened`` has the files and folders that it reads, models aside, ``drawn``: its seed is the system's."""
    asked = {name: value for name, value in settings(config).items() if name != "workers" and not (drawn and name == "seed")}
    try:
        models = [inspected(config, model).digest for model in config.models]
        files = [[flag, _digest(path)] for flag, path in opened]
    except BdauditError:
        return Mark("", tuple(reports))
    return Mark(run_key(command, asked | {"files": files}, "\n".join(models)), tuple(reports))


def _digest(path: Path) -> str:
    """SHA-256 of a file, or a folder's names and theirs."""
    if not path.is_dir():
        return sha256(path, str(path))
    root = path.resolve()
    files = walk(root).files
    reader = Reader(root, files)
    return json.dumps({name: reader.sha256(name) for name in files}, sort_keys=True)


def check_once(reports: Sequence[Path], *, json_too: bool) -> None:
    """Raises ``UsageError`` where nothing would say that the run was made, or stdout would lack what it promises."""
    if not reports or json_too:
        said = "stdout has no report of a run that is not made; drop --json" if json_too else "give --report FILE"
        raise UsageError(f"--once looks for the reports of the run before: {said}")
