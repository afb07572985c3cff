"""What a run does where nobody says: its seed, and the places beside its report or its model. Typed or called from Python alike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bdaudit.cli.values import need_name
from bdaudit.config import ScanConfig, UnlearnConfig, VerifyConfig, unlearn_config
from bdaudit.errors import UsageError

Settings = dict[str, Any]
"""Field of a config → value, of what was asked for and of nothing else."""
Reports = Sequence[Path]
"""Files that the run's report goes to."""


def scan_config(given: Settings, reports: Reports = ()) -> ScanConfig:
    """Of a scan; raises ``UsageError`` for settings that do not go together."""
    from bdaudit.cli.seeds import fresh_seed

    if "keep" in given and "state" in given:
        raise UsageError("--keep holds all that --state does, and stays; give one")
    given.setdefault("state", None if "keep" in given else _beside_report(reports, ".state"))
    if "seed" in given and "seed_from" in given:
        raise UsageError("--seed and --seed-from both say what the seed is; give one")
    if given.get("seed_from") == "":
        raise UsageError("--seed-from is empty; expected the name of an environment variable, which holds the secret")
    given.setdefault("seed", fresh_seed(given["state"]))
    if given.get("pictures"):
        given.setdefault("pictures_to", _beside_report(reports, ".pictures", of=".html"))
    return ScanConfig(**given)


def repair_config(given: Settings, reports: Reports = ()) -> UnlearnConfig:
    """Of the job of ``unlearn`` that ``given`` asks for; raises as ``unlearn_config``."""
    from bdaudit.untrusted.hub_snapshot import place_of

    if "patch" not in given:
        given.setdefault("out", _beside(place_of(given["model"]), "-unlearned"))
    result = given.get("out") or given.get("patch")
    return unlearn_config(given, _beside(result, ".state") if result else None)


def verify_config(given: Settings, reports: Reports = ()) -> VerifyConfig:
    """Of a verify; bounds of ``--policy`` stand where no flag says otherwise."""
    from bdaudit.verify.policy import read_policy

    policy = read_policy(given["policy"]) if "policy" in given else {}
    twice = sorted(policy.keys() & getattr(given, "from_file", ()))
    if twice:
        raise UsageError(f"--policy {given['policy']} and the settings file both say {twice[0]}; let one of them say it")
    for name, value in policy.items():
        given.setdefault(name, value)
    given.setdefault("save_images", _beside_report(reports, ".pictures", of=".html"))
    given.setdefault("state", _beside_report(reports, ".state"))
    return VerifyConfig(**given)


def _beside_report(reports: Reports, suffix: str, of: str = "") -> Path | None:
    """Beside the first report, or the first with the suffix ``of``; nowhere where there is none."""
    return next((_named(path.with_suffix(suffix)) for path in reports if path.suffix.lower() == of or not of), None)


def _named(place: Path) -> Path:
    need_name(str(place), "the place beside it,")
    return place


def _beside(path: Path, end: str) -> Path | None:
    """A path's name with ``end`` at its end; a name of its own, where the path is ``.`` or ends in ``..``; none beside the root."""
    whole = path if path.name and path.name != ".." else path.resolve()
    return _named(whole.with_name(f"{whole.name}{end}")) if whole.name else None
