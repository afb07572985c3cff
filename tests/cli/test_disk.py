"""A full disk, a target that may not be written, two runs on one output: a clear error, and what was there before stays."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bdaudit.records import Exit, ScanReport

FORMATS = ("json", "html", "sarif")


def in_child(call: Callable[[], int], *, most: int) -> int:
    """What ``call`` returns in a forked child that can write no file longer than ``most`` bytes."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
            code = call()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def passing(verb: Any, scan_report: ScanReport) -> ScanReport:
    """A scan that finds nothing; only what cannot be written can make it an error."""
    report = replace(scan_report, exit=Exit(code=0, name="pass", reason="nothing"))
    verb("scan", report)
    return report


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_report_that_does_not_fit(bdaudit: Any, passing: ScanReport, model: Path, tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"report.{suffix}"
    target.write_text("the one from before")
    assert in_child(lambda: bdaudit("scan", model, "--report", target, "--quiet").code, most=64) == 3
    assert target.read_text() == "the one from before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", target.name]
    assert bdaudit("scan", model, "--report", target).code == 0
    assert target.read_text() != "the one from before"


def test_a_finding_stays_one_when_its_report_cannot_be_written(bdaudit: Any, verb: Any, scan_report: ScanReport, model: Path) -> None:
    verb("scan", scan_report)
    target = model.parent / "report.json"
    assert in_child(lambda: bdaudit("scan", model, "--report", target, "--quiet").code, most=64) == 1
    assert not target.exists()


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_disk_that_is_full(bdaudit: Any, passing: ScanReport, model: Path, tmp_path: Path, suffix: str) -> None:
    with small_disk(tmp_path) as disk:
        target = disk / f"report.{suffix}"
        target.write_text("the one from before")
        with open(disk / "rest", "wb", buffering=0) as rest, contextlib.suppress(OSError):
            while rest.write(bytes(4096)):
                pass
        ended = bdaudit("scan", model, "--report", target)
        assert ended.code == 3
        assert os.strerror(errno.ENOSPC) in ended.last
        assert target.read_text() == "the one from before"
        assert {path.name for path in disk.iterdir()} == {"rest", target.name}


@contextlib.contextmanager
def small_disk(folder: Path) -> Any:
    """A file system of 64 kB; skips where none can be mounted."""
    place = folder / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    made = mount and subprocess.run([mount, "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], capture_output=True).returncode == 0
    if not made:
        pytest.skip("no file system can be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


LOST = """
import sys, types
from bdaudit.errors import BdauditError
module = types.ModuleType("bdaudit.scan.run")
def run_scan(config, progress):
    raise BdauditError("the weights are damaged")
module.run_scan = run_scan
sys.modules["bdaudit.scan.run"] = module
import runpy
sys.argv = ["bdaudit", *sys.argv[1:]]
runpy.run_module("bdaudit", run_name="__main__")
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(("arguments", "expected"), [(["scan", "."], 3), (["scan", ".", "--json"], 3), (["--version"], 3), (["--help"], 3)])
def test_a_stdout_that_is_full(arguments: list[str], expected: int) -> None:
    root = Path(__file__).parents[2]
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", LOST, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, cwd=root)
    assert done.returncode == expected, done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"bdaudit: exit {expected} (error): ")


def test_a_folder_that_may_not_be_written(bdaudit: Any, passing: ScanReport, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir()
    (folder / "report.json").write_text("the one from before")
    with readable_only(folder):
        ended = bdaudit("scan", model, "--report", folder / "report.json")
    assert ended.code == 3
    assert "Permission denied" in ended.last
    assert os.listdir(folder) == ["report.json"]
    assert (folder / "report.json").read_text() == "the one from before"


@contextlib.contextmanager
def readable_only(folder: Path) -> Any:
    """``folder`` without the right to write, for root too, who has to become somebody else for that."""
    for path in (folder, *folder.parents):
        if path.stat().st_uid == os.getuid() and len(path.parts) > 2:
            path.chmod(0o755)
    folder.chmod(0o555)
    as_root = os.geteuid() == 0
    if as_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if as_root:
            os.seteuid(0)
        folder.chmod(0o755)


@pytest.mark.parametrize("target", ["report.json", "two/report.html"])
def test_a_report_over_a_folder_is_exit_2(bdaudit: Any, passing: ScanReport, model: Path, tmp_path: Path, target: str) -> None:
    if "/" not in target:
        (tmp_path / target).mkdir()
    assert bdaudit("scan", model, "--report", tmp_path / target).code == 2


def test_two_runs_on_one_report_leave_one_whole(bdaudit: Any, passing: ScanReport, model: Path, tmp_path: Path) -> None:
    import json

    target = tmp_path / "report.json"
    children = []
    for _ in range(6):
        child = os.fork()
        if child == 0:
            code = 99
            try:
                code = bdaudit("scan", model, "--report", target, "--quiet").code
            finally:
                os._exit(code)
        children.append(child)
    assert {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children} == {0}
    assert json.loads(target.read_text())["exit"]["code"] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "report.json"]
