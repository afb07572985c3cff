"""A run without ``--state``: what it keeps lies in the user's cache, the same command goes on from there, and nothing stays behind."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bdaudit import state_home, state_lock
from bdaudit.cli.default_state import place_of, wanted
from bdaudit.cli.going_on import clear
from bdaudit.config import RepairConfig, ScanConfig, VerifyConfig
from bdaudit.errors import BdauditError, ExitCode, InconclusiveError
from bdaudit.kept_state import State
from bdaudit.records import Exit, ScanReport, VariantRun
from bdaudit.scan import run as run_of_scan
from tests.cli.conftest import Ended
from tests.small import PROMPTS, stopping

STOPPED = Exit.of(ExitCode.INTERRUPTED, "stopped by the user")
Run = Callable[..., Ended]


def full(descriptor: int) -> None:
    raise OSError(28, "No space left on device")


@contextlib.contextmanager
def held_by_another(folder: Path) -> Iterator[None]:
    """While another process is at work in a state's folder."""
    hold = "import sys; from pathlib import Path; from bdaudit.state_lock import hold; hold(Path(sys.argv[1])); print(); input()"
    command = [sys.executable, "-c", hold, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdout.readline()
        yield
        other.stdin.close()


@pytest.fixture
def keeping(verb: Any, scan_report: ScanReport) -> Callable[..., list[Any]]:
    """A scan that keeps something and ends so; the configs that it saw, with what it found there."""

    def put(ended: Exit, key: str = "key") -> list[Any]:
        def run(config: Any, progress: Any) -> ScanReport:
            state = State(config.state, key)
            found.append((config, state.read_json("text")))
            state.write_json("seed", config.seed)
            state.write_json("text", "measured")
            if ended.code == ExitCode.PASS:
                state.finish()
            return replace(scan_report, exit=ended, status="interrupted" if ended == STOPPED else "completed")

        found: list[Any] = []
        verb("scan", run)
        return found

    return put


def states(cache: Path) -> list[str]:
    return sorted(os.listdir(cache / "bdaudit/states"))


def test_the_same_command_goes_on_with_its_seed_and_leaves_nothing(bdaudit: Run, keeping: Any, model: Path, in_cache: Path) -> None:
    stopped = keeping(STOPPED)
    ended = bdaudit("scan", model)
    ((config, _),) = stopped
    assert config.state.parent == in_cache / "bdaudit/states"
    assert (ended.code, config.state.is_dir()) == (130, True)
    assert "; repeat the command to go on, what was measured is kept in " in ended.last
    assert f"{config.state.name} for 7 days" in ended.last
    for folder in (in_cache / "bdaudit", config.state.parent):
        assert folder.stat().st_mode & 0o777 == 0o700
    done = keeping(Exit.of(ExitCode.PASS, "done"))
    ended = bdaudit("scan", model)
    ((again, found),) = done
    assert (again, found) == (config, "measured"), "the seed, too"
    assert f"going on from what an earlier run left in {config.state}" in ended.err
    assert states(in_cache) == []
    bdaudit("scan", model)
    assert done[1][0].seed != config.seed, "another run, from its beginning"


def test_what_the_report_says_to_repeat_goes_on_too(bdaudit: Run, keeping: Any, model: Path, in_cache: Path) -> None:
    stopped = keeping(STOPPED)
    line = json.loads(bdaudit("scan", model, "--json").out)["repeat"]
    assert line.endswith(f" --seed {stopped[0][0].seed}")
    done = keeping(Exit.of(ExitCode.PASS, "done"))
    bdaudit("scan", model, "--seed", stopped[0][0].seed + 1)
    assert json.loads(bdaudit(*shlex.split(line)[1:]).out)["exit"]["code"] == 0
    assert [found for _, found in done] == [None, "measured"]
    assert states(in_cache) == []


@pytest.mark.parametrize("other", [("--alpha", "0.02"), ("--seed", "5"), ("--effort", "low")])
def test_another_command_is_another_run(bdaudit: Run, keeping: Any, model: Path, in_cache: Path, other: tuple[str, str]) -> None:
    seen = keeping(STOPPED)
    bdaudit("scan", model), bdaudit("scan", model, *other)
    assert [found for _, found in seen] == [None, None]
    assert len(states(in_cache)) == 2


def test_the_same_words_in_another_folder_are_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ScanConfig(model=Path("m"), seed=3)
    (tmp_path / "a").mkdir()
    places = set()
    for folder in (tmp_path, tmp_path / "a"):
        monkeypatch.chdir(folder)
        places |= {place_of("scan", replace(config, seed=seed), drawn=True) for seed in (3, 4)}
    assert len(places) == 2
    assert place_of("scan", config, drawn=False) != place_of("scan", replace(config, seed=4), drawn=False)
    assert place_of("scan", config, drawn=True) not in (place_of("verify", config, drawn=True), place_of("scan", config, drawn=False))


def test_another_model_at_the_same_place_begins_anew(bdaudit: Run, keeping: Any, model: Path, in_cache: Path) -> None:
    keeping(STOPPED)
    bdaudit("scan", model)
    seen = keeping(Exit.of(ExitCode.PASS, "done"), key="another")
    assert bdaudit("scan", model).code == 0
    assert [found for _, found in seen] == [None]
    assert states(in_cache) == []


def test_what_cannot_be_read_begins_anew(bdaudit: Run, keeping: Any, model: Path, in_cache: Path) -> None:
    ((config, _),) = (keeping(STOPPED), bdaudit("scan", model))[0]
    (config.state / "run.json").write_text("{")
    seen = keeping(Exit.of(ExitCode.PASS, "done"))
    assert bdaudit("scan", model).code == 0
    assert [found for _, found in seen] == [None]


@pytest.mark.parametrize(
    ("flags", "keeps"), [(("--state", "S"), False), (("--report", "R"), False), (("-o", "R"), False), (("--keep", "S"), False), ((), True)]
)
def test_it_is_only_where_there_is_no_other(
    bdaudit: Run, verb: Any, scan_report: ScanReport, model: Path, tmp_path: Path, in_cache: Path, flags: tuple[str, ...], keeps: bool
) -> None:
    seen = verb("scan", scan_report)
    bdaudit("scan", model, *({"S": tmp_path / "s", "R": tmp_path / "r.json"}.get(flag, flag) for flag in flags))
    assert (seen[0].state is not None and seen[0].state.is_relative_to(in_cache)) is keeps
    assert (in_cache / "bdaudit").exists() is keeps


def test_what_keeps_no_state_gets_none(tmp_path: Path) -> None:
    assert wanted(ScanConfig(model=tmp_path))
    assert wanted(VerifyConfig(model=tmp_path))
    assert not wanted(RepairConfig(model=tmp_path, triggers=("a",), out=tmp_path / "o", state=tmp_path / "s"))
    assert not wanted(ScanConfig(model=tmp_path, keep=tmp_path / "k"))


def test_a_dry_run_names_it_and_makes_nothing(bdaudit: Run, tiny_model: Path, in_cache: Path) -> None:
    out = bdaudit("scan", tiny_model, "--dry-run").out
    assert f"would be written: {in_cache}/bdaudit/states/scan-" in out
    assert not in_cache.exists()


# --- where there can be none ------------------------------------------------------------------


def refused(ended: Ended, seen: list[Any], why: str) -> None:
    assert ended.code == 1, "as the run itself ended"
    assert [config.state for config in seen] == [None]
    (line,) = [line for line in ended.err.splitlines() if "nothing is kept of this run" in line]
    assert why in line


def test_a_cache_that_cannot_be_written_is_told_in_a_line(
    bdaudit: Run, verb: Any, scan_report: ScanReport, model: Path, tmp_path: Path, in_cache: Path
) -> None:
    seen = verb("scan", scan_report)
    in_cache.write_text("a file")
    refused(bdaudit("scan", model), seen, "states cannot be written: ")


def test_what_others_can_write_is_not_taken(bdaudit: Run, verb: Any, scan_report: ScanReport, model: Path, in_cache: Path) -> None:
    seen = verb("scan", scan_report)
    (in_cache / "bdaudit").mkdir(parents=True)
    (in_cache / "bdaudit").chmod(0o777)
    refused(bdaudit("scan", model), seen, "bdaudit is no folder that this user alone can write")


def test_a_link_is_not_followed(bdaudit: Run, verb: Any, scan_report: ScanReport, model: Path, tmp_path: Path, in_cache: Path) -> None:
    seen = verb("scan", scan_report)
    in_cache.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (in_cache / "bdaudit").symlink_to(tmp_path / "elsewhere")
    refused(bdaudit("scan", model), seen, "bdaudit is no folder that this user alone can write")
    assert os.listdir(tmp_path / "elsewhere") == []


@pytest.mark.parametrize(("variable", "why"), [("XDG_CACHE_HOME", "which is never written"), ("HF_HUB_CACHE", "lies in the hub's cache")])
def test_never_in_the_model_nor_in_the_hubs_cache(
    bdaudit: Run, verb: Any, scan_report: ScanReport, model: Path, in_cache: Path, monkeypatch: pytest.MonkeyPatch, variable: str, why: str
) -> None:
    seen = verb("scan", scan_report)
    monkeypatch.setenv(variable, str(model if variable == "XDG_CACHE_HOME" else in_cache))
    refused(bdaudit("scan", model), seen, why)
    assert list(model.iterdir()) == []
    assert not in_cache.exists()


def test_the_same_command_at_the_same_time_runs_without(
    bdaudit: Run, verb: Any, scan_report: ScanReport, model: Path, in_cache: Path, keeping: Any
) -> None:
    ((config, _),) = (keeping(STOPPED), bdaudit("scan", model))[0]
    with held_by_another(config.state):
        seen = verb("scan", scan_report)
        refused(bdaudit("scan", model), seen, "is in use by another run")
        assert seen[0].seed != config.seed
    assert config.state.is_dir(), "it is the other run's"


def test_a_relative_cache_is_the_homes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for named in ("", "here", "./here"):
        monkeypatch.setenv("XDG_CACHE_HOME", named)
        assert state_home.home() == tmp_path / ".cache/bdaudit/states"


def test_a_disk_that_is_full_ends_no_run(
    bdaudit: Run, keeping: Any, model: Path, in_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeping(Exit.of(ExitCode.PASS, "done"))
    monkeypatch.setattr("os.fsync", full)
    ended = bdaudit("scan", model)
    assert (ended.code, ended.err.count("nothing more is kept of this run")) == (0, 1), ended.err
    assert "No space left" in ended.err
    with pytest.raises(BdauditError, match="No space left"):
        State(tmp_path / "asked for", "key").write_json("text", "measured")
    state_lock.release()


def test_a_seed_that_is_none_ends_no_run(bdaudit: Run, keeping: Any, model: Path, in_cache: Path) -> None:
    ((config, _),) = (keeping(STOPPED), bdaudit("scan", model))[0]
    (config.state / "kept-seed.json").write_text("-1")
    seen = keeping(Exit.of(ExitCode.PASS, "done"))
    ended = bdaudit("scan", model)
    assert (ended.code, seen[0][0].state, "nothing is kept of this run" in ended.err) == (0, None, True)


# --- what stays, and how long -------------------------------------------------------------------


def test_what_nobody_came_back_to_goes_after_a_week(bdaudit: Run, keeping: Any, model: Path, in_cache: Path) -> None:
    keeping(STOPPED)
    for alpha, days in (("0.02", 8), ("0.03", 6)):
        bdaudit("scan", model, "--alpha", alpha)
        newest = max((in_cache / "bdaudit/states").iterdir(), key=lambda path: path.stat().st_mtime)
        os.utime(newest, (time.time() - days * 86_400,) * 2)
    (in_cache / "bdaudit/states/note").write_text("somebody's")
    bdaudit("scan", model)
    assert len(states(in_cache)) == 3, "a file, the one of six days, and this one"


def test_what_was_measured_stays_till_the_report_is_there(
    bdaudit: Run, keeping: Any, model: Path, in_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = keeping(Exit.of(ExitCode.FINDING, "a finding"))
    monkeypatch.setattr("bdaudit.report.deliver._tables_on_stdout", lambda report: 1 / 0)
    assert bdaudit("scan", model).code == 1
    assert states(in_cache) == [found[0][0].state.name]
    monkeypatch.undo()


def test_a_run_that_is_undecided_on_its_way_keeps_what_it_has_whoever_goes_on(
    bdaudit: Run, verb: Any, scan_report: ScanReport, model: Path, in_cache: Path
) -> None:
    def run(config: Any, progress: Any) -> ScanReport:
        state = State(config.state, "key")
        found.append(state.read_json("text"))
        state.write_json("text", "measured")
        if config.workers != "1":
            raise InconclusiveError("1 block cost every worker; all others are kept; repeat the command without workers")
        return scan_report

    found: list[Any] = []
    verb("scan", run)
    assert bdaudit("scan", model, "--seed", "3", "--workers", "2").code == 4
    assert bdaudit("scan", model, "--seed", "3").code == 1
    assert (found, states(in_cache)) == ([None, "measured"], [])


@pytest.mark.parametrize(("other", "stays"), [(ExitCode.ERROR, True), (ExitCode.INCONCLUSIVE, False)])
def test_a_finding_on_one_variant_takes_nothing_from_one_that_failed(
    scan_report: ScanReport, in_cache: Path, other: ExitCode, stays: bool
) -> None:
    config = ScanConfig(model=Path("m"), state=state_home.home() / "scan-1")
    runs = tuple(VariantRun(variant="v", code=code, name=code.label, reason="said") for code in (ExitCode.FINDING, other))
    assert config.state is not None
    state_home.take(config.state)
    clear(replace(scan_report, variants=runs), config)
    assert config.state.is_dir() is stays


def test_a_long_run_is_not_swept_away(bdaudit: Run, keeping: Any, model: Path, in_cache: Path) -> None:
    ((config, _),) = (keeping(STOPPED), bdaudit("scan", model))[0]
    with held_by_another(config.state):
        os.utime(config.state, (0, 0))
        bdaudit("scan", model, "--alpha", "0.02")
        assert (config.state / "run.json").exists()
    os.utime(config.state, (0, 0))
    bdaudit("scan", model, "--alpha", "0.02")
    assert not config.state.exists()


# --- real runs ----------------------------------------------------------------------------------


def test_a_real_scan_goes_on_to_what_it_would_have_found(
    bdaudit: Run, in_cache: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tokens.txt").write_text("cf\n")
    Path("prompts.txt").write_text("\n".join(PROMPTS))
    command = ("scan", tiny_model, "--candidates", "tokens.txt", "--prompts", "prompts.txt", "--effort", "low", "--device", "cpu", "-q")
    whole = run_of_scan.run_scan
    monkeypatch.setattr(run_of_scan, "run_scan", lambda config, progress: whole(config, stopping(3)))
    assert bdaudit(*command).code == 130
    (folder,) = (in_cache / "bdaudit/states").iterdir()
    seed = json.loads((folder / "kept-seed.json").read_text())
    monkeypatch.setattr(run_of_scan, "run_scan", whole)
    report = json.loads(bdaudit(*command, "--format", "json").out)
    assert report["config"]["seed"] == seed
    assert states(in_cache) == []
    undisturbed = json.loads(bdaudit(*command, "--seed", seed, "--json").out)
    assert report["candidates"] == undisturbed["candidates"]
    assert report["calibration"]["forward_passes"] < undisturbed["calibration"]["forward_passes"]


def test_a_real_verify_draws_no_picture_twice(
    bdaudit: Run, in_cache: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clip: Path
) -> None:
    from bdaudit.verify import rejudge

    whole = rejudge.run_verify
    command = ("verify", tiny_model, "--n", 6, "--steps", 1, "--clip", f"local-dir:{clip}", "--device", "cpu", "--batch-size", 2)
    monkeypatch.setattr(rejudge, "run_verify", lambda config, progress: whole(config, stopping(2)))
    ended = bdaudit(*command)
    assert (ended.code, "repeat the command to go on" in ended.last) == (130, True), ended.err
    monkeypatch.setattr(rejudge, "run_verify", whole)
    drawn = json.loads(bdaudit(*command, "--format", "json").out)["pictures"]
    assert drawn["reused"] > 0
    assert drawn["drawn"] + drawn["reused"] == 6
    assert states(in_cache) == []
