"""What a run writes: whole or not there, and tried before the work, with nothing left of the trial."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from bdaudit import targets
from bdaudit.errors import BdauditError, UsageError

LONGEST = 255
"""Bytes of a name, on every file system that runs are likely to write to."""


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("flag", ["--out", "--patch", "--state", "--save-images"])
def test_a_trial_leaves_nothing(flag: str, tmp_path: Path) -> None:
    name = "new.safetensors" if flag == "--patch" else "new"
    targets.try_written([(flag, tmp_path / name)])
    assert tree(tmp_path) == []


def test_folders_are_made_for_the_trial_and_taken_away_again(tmp_path: Path) -> None:
    targets.try_written([("--state", tmp_path / "a/b/c")])
    assert tree(tmp_path) == []
    (tmp_path / "a").mkdir()
    (tmp_path / "a/kept.json").write_text("x")
    targets.try_written([("--state", tmp_path / "a"), ("--save-images", tmp_path / "a/b")])
    assert tree(tmp_path) == ["a", "a/kept.json"]


def test_what_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir(mode=0o711)
    inode = (tmp_path / "empty").stat().st_ino
    targets.try_written([("--out", tmp_path / "empty")])
    assert ((tmp_path / "empty").stat().st_ino, (tmp_path / "empty").stat().st_mode & 0o777) == (inode, 0o711)
    (tmp_path / "report.json").write_text("the one from before")
    targets.try_file(tmp_path / "report.json", "--report")
    assert (tmp_path / "report.json").read_text() == "the one from before"
    assert tree(tmp_path) == ["empty", "report.json"]


@pytest.mark.parametrize(
    ("flag", "name", "said"),
    [
        ("--out", "file", "is a file"),
        ("--out", "full", "is not empty"),
        ("--out", "no/where", "does not exist; create it first"),
        ("--out", "link", "is a link"),
        ("--out", "..", "no name of a directory"),
        ("--patch", "there.safetensors", "exists; name a new file"),
        ("--patch", "p.bin", r"ends in \.safetensors"),
        ("--patch", "no/p.safetensors", "does not exist"),
        ("--state", "file", "is a file; expected a folder"),
        ("--save-images", "file/below", "cannot be written: Not a directory"),
    ],
)
def test_what_is_not_free_is_told(tmp_path: Path, flag: str, name: str, said: str) -> None:
    for file in ("file", "there.safetensors"):
        (tmp_path / file).write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    (tmp_path / "link").symlink_to("full")
    before = tree(tmp_path)
    with pytest.raises(UsageError, match=f"^{flag} .*{said}"):
        targets.try_written([(flag, tmp_path / name)])
    assert tree(tmp_path) == before


@pytest.mark.parametrize("flag", ["--out", "--patch", "--state"])
def test_a_name_can_be_as_long_as_the_disk_takes(tmp_path: Path, flag: str) -> None:
    end = ".safetensors" if flag == "--patch" else ""
    targets.try_written([(flag, tmp_path / ("x" * (LONGEST - len(end)) + end))])
    with pytest.raises(UsageError, match="cannot be written: File name too long; name it shorter"):
        targets.try_written([(flag, tmp_path / ("x" * (LONGEST + 1 - len(end)) + end))])
    assert tree(tmp_path) == []


def test_a_file_of_the_longest_name_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("é" * (LONGEST // 2))
    targets.try_file(path, "--report")
    targets.write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert tree(tmp_path) == [path.name]


def test_a_folder_in_the_place_of_a_report_is_told(tmp_path: Path) -> None:
    (tmp_path / "report.json").mkdir()
    with pytest.raises(UsageError, match="--report is a folder; name a file"):
        targets.try_file(tmp_path / "report.json", "--report")


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (errno.ENOSPC, 3, "make room"),
        (errno.EACCES, 3, "name a place"),
        (errno.EBUSY, 2, "a mount point"),
        (errno.EINVAL, 2, "name a place"),
    ],
)
def test_the_disks_faults_are_errors_and_the_places_are_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int, said: str
) -> None:
    def fails(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.rename", fails)
    with pytest.raises(BdauditError, match=said) as caught:
        targets.try_written([("--out", tmp_path / "out")])
    assert caught.value.code == code
    assert tree(tmp_path) == []


def test_an_empty_mount_point_is_told_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    mount = shutil.which("mount")
    if not mount or subprocess.run([mount, "-t", "tmpfs", "tmpfs", tmp_path / "disk"], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        with pytest.raises(UsageError, match="it is a mount point, which cannot be replaced; name a new folder in it"):
            targets.try_written([("--out", tmp_path / "disk")])
        targets.try_written([("--out", tmp_path / "disk/out")])
    finally:
        subprocess.run(["umount", tmp_path / "disk"], check=True)


def test_a_file_that_fails_half_way_leaves_the_older_one(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"old")
    with contextlib.suppress(ZeroDivisionError), targets.whole(tmp_path / "x") as partial:
        partial.write_bytes(b"half")
        raise ZeroDivisionError
    assert (tmp_path / "x").read_bytes() == b"old"
    assert tree(tmp_path) == ["x"]


@pytest.mark.parametrize(("blocks", "free", "told"), [(9, (1 << 20) + 7, False), (9, (1 << 20) + 6, True), (0, 0, False)])
def test_a_megabyte_is_left_over_where_the_disk_says_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocks: int, free: int, told: bool
) -> None:
    monkeypatch.setattr("os.statvfs", lambda _: SimpleNamespace(f_blocks=blocks, f_bavail=free, f_frsize=1))
    with pytest.raises(BdauditError, match="make room") if told else contextlib.nullcontext():
        targets.check_room(tmp_path, 7, "--out")


def test_room_is_told_from_both_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = os.statvfs(tmp_path)
    free = disk.f_bavail * disk.f_frsize
    targets.check_room(tmp_path, 0, "--out")
    with pytest.raises(BdauditError, match=r"--out takes .* the disk has"):
        targets.check_room(tmp_path, 2 * free, "--out")


ODD = {
    "a pipe": lambda path: os.mkfifo(path),
    "a link to a pipe": lambda path: (os.mkfifo(path.with_name("pipe")), path.symlink_to("pipe")),
    "a link to a device": lambda path: path.symlink_to("/dev/null"),
    "a link to what the process has open": lambda path: path.symlink_to("/proc/self/fd/1"),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_no_file_is_never_replaced_by_one(tmp_path: Path, name: str) -> None:
    """Root may rename a file over a device: ``/dev/null`` itself went so."""
    path = tmp_path / "report.json"
    ODD[name](path)
    before, kind = tree(tmp_path), path.lstat().st_mode
    with pytest.raises(UsageError, match="which a report would replace; name a file"):
        targets.try_file(path, "--report")
    with pytest.raises(FileExistsError, match="which is not replaced"):
        targets.write_whole(path, b"x")
    assert (tree(tmp_path), path.lstat().st_mode) == (before, kind)


def test_a_file_a_link_to_one_and_a_link_to_nothing_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text("old")
    for target in ("old.json", "nothing.json"):
        path = tmp_path / f"to-{target}"
        path.symlink_to(target)
        targets.try_file(path, "--report")
        targets.write_whole(path, b"x")
        assert not path.is_symlink()
        assert path.read_bytes() == b"x"
    assert (tmp_path / "old.json").read_text() == "old"
