"""The one door: what is no regular file, too large, mostly a hole or no figure ends at once, as the error that was asked for."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bdaudit.errors import BdauditError, RefusedError, UsageError
from bdaudit.untrusted import open_file as open_file_module
from bdaudit.untrusted.open_file import FIRST, TOML_LIMITS, open_file, read_file, read_json, read_toml, sha256
from bdaudit.untrusted.safetensors_header import header_of
from bdaudit.untrusted.tree import Reader

JSON_LIMITS = (1 << 20, 1000)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def bound_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's path has 107 characters at most
        try:
            listening.bind(path.name)
        finally:
            os.chdir(here)


ODD: dict[str, Callable[[Path], object]] = {
    "a pipe": pipe,
    "a folder": Path.mkdir,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to a pipe": lambda path: (pipe(path.with_name("pipe")), path.symlink_to("pipe")),
    "a socket": bound_socket,
    "a link in a circle": lambda path: path.symlink_to(path.name),
    "nothing": lambda _: None,
}


@pytest.mark.parametrize("make", ODD.values(), ids=ODD)
def test_what_is_no_regular_file_ends_at_once(make: Callable[[Path], object], tmp_path: Path) -> None:
    make(tmp_path / "odd")
    started = time.monotonic()
    with pytest.raises(UsageError, match=r"^--flag odd (is|cannot be opened)"):
        open_file(tmp_path / "odd", "--flag odd")
    assert time.monotonic() - started < 1


def test_why_a_file_cannot_be_opened_is_said_in_the_systems_words(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^--flag missing cannot be opened: No such file or directory$"):
        open_file(tmp_path / "missing", "--flag missing")
    with pytest.raises(UsageError, match=r"^--flag cannot be opened: embedded null byte$"):
        open_file(tmp_path / "a\0b", "--flag")


def test_a_name_that_no_file_can_have_is_a_declared_error(tmp_path: Path) -> None:
    for name in ("a\0b", "a" * 300):
        with pytest.raises(UsageError, match="cannot be opened"):
            open_file(tmp_path / name, "--flag")


def test_a_link_is_followed_where_that_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    with open_file(tmp_path / "link", "it") as file:
        assert file.read() == b"content"
    with pytest.raises(UsageError, match="it is a link, which is not followed"):
        open_file(tmp_path / "link", "it", follow=False)
    assert read_file(tmp_path / "file", "it", 7, follow=False) == b"content"
    for follow in (True, False):
        with pytest.raises(UsageError, match="No such file"):
            open_file(tmp_path / "nothing", "it", follow=follow)


def test_a_file_is_opened_from_a_folders_descriptor(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    folder = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with open_file("file", "it", follow=False, folder=folder) as file:
            assert file.read() == b"content"
        with pytest.raises(UsageError, match="link"):
            open_file("link", "it", follow=False, folder=folder)
    finally:
        os.close(folder)


def test_the_error_is_of_the_kind_that_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="is a folder"):
        open_file(tmp_path, "it", error=lambda said: RefusedError([said]))


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    pipe(tmp_path / "pipe")
    before = len(os.listdir("/dev/fd"))
    for _ in range(20):
        with pytest.raises(BdauditError):
            open_file(tmp_path / "pipe", "it")
    assert len(os.listdir("/dev/fd")) == before


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345678")
    assert read_file(tmp_path / "file", "it", 8) == b"12345678"
    with pytest.raises(UsageError, match="it is longer than 7 bytes"):
        read_file(tmp_path / "file", "it", 7)


def test_a_hole_is_refused_and_the_same_bytes_on_the_disk_are_not(tmp_path: Path) -> None:
    size = 32 << 20
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(size)
    (tmp_path / "whole").write_bytes(bytes(size))
    with pytest.raises(UsageError, match="mostly a hole: it claims 33,554,432 bytes"):
        open_file(tmp_path / "hole", "it")
    assert len(read_file(tmp_path / "whole", "it", size)) == size


def test_what_git_lfs_left_names_the_command(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1\n")
    with pytest.raises(UsageError, match="git lfs pull"):
        read_file(tmp_path / "file", "it", 1000)


@pytest.mark.parametrize(
    "text",
    ["NaN", "[Infinity]", '{"a": -Infinity}', "1e999", "[" * 100 + "]" * 100, "[" * 3000 + "]" * 3000, "1" * 5000, '{"a": 1, "a": 2}',
     "{", "\udcff", "[" + "1," * 1000 + "1]", ""],
)  # fmt: skip
def test_json_that_is_none_within_bounds_is_an_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UsageError, match=r"^--flag x\.json"):
        read_json(tmp_path / "x.json", "--flag x.json", JSON_LIMITS)


def test_json_within_bounds_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": [1, 1.5, true, null, "\\u00e9"]}')
    assert read_json(tmp_path / "x.json", "it", JSON_LIMITS) == {"a": [1, 1.5, True, None, "é"]}


@pytest.mark.parametrize(
    "text",
    ["a" + ".a" * 30_000 + " = 1", "x = " + "[" * 3000 + "]" * 3000, "x = " + "1" * 5000, "\n" * TOML_LIMITS[1] + "x = 1",
     "# " + "x" * TOML_LIMITS[2], "x = " + "[" * 490 + "]" * 490, "x = 1\nx = 2", "\udcff = 1"],
)  # fmt: skip
def test_toml_that_is_none_within_bounds_is_an_error_at_once(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    started = time.process_time()
    with pytest.raises(UsageError, match=r"^--policy x\.toml"):
        read_toml(tmp_path / "x.toml", "--policy x.toml")
    assert time.process_time() - started < 1


def test_toml_up_to_the_bounds_is_read_at_once(tmp_path: Path) -> None:
    lines = [f"k{i}" + ".a" * 490 + " = 1" for i in range(60)]
    (tmp_path / "x.toml").write_text("\n".join(lines))
    started = time.process_time()
    assert len(read_toml(tmp_path / "x.toml", "it")) == 60
    assert time.process_time() - started < 2


def test_a_digest_is_the_files_own(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    assert sha256(tmp_path / "file", "it") == hashlib.sha256(b"content").hexdigest()


MEMORY = Path("/proc/self/mem")
"""A regular file that opens and cannot be read at its start."""


@pytest.mark.skipif(not MEMORY.exists(), reason="the system has no such file")
@pytest.mark.parametrize("read", [lambda path: read_file(path, "--x f", 9), lambda path: sha256(path, "--x f")])
def test_a_file_that_opens_and_cannot_be_read_is_told(read: Callable[[Path], object]) -> None:
    with pytest.raises(UsageError, match="--x f cannot be read: Input/output error"):
        read(MEMORY)


def test_a_file_that_has_nothing_yet_is_empty() -> None:
    class Waiting:
        def read(self, size: int) -> None:
            """As a buffered file whose system call would have to wait."""

    assert open_file_module.read_all(Waiting(), "--x f", 9) == b""  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [FIRST - 1, FIRST, FIRST + 1, 3 * FIRST])
def test_a_file_is_read_whole_up_to_its_limit_however_it_is_read(size: int, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(data := os.urandom(size))
    assert read_file(tmp_path / "f", "--x f", size) == data
    with pytest.raises(UsageError, match="longer than"):
        read_file(tmp_path / "f", "--x f", size - 1)


class Silent(io.BytesIO):
    """What has nothing to read yet, and does not wait: the kernel's log."""

    def read(self, size: int | None = -1, /) -> bytes:
        return None  # type: ignore[return-value]


def test_a_file_that_has_nothing_yet_is_empty_everywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(open_file_module, "open_file", lambda *_, **__: Silent())
    assert sha256(tmp_path / "log", "--flag log") == hashlib.sha256().hexdigest()
    assert read_file(tmp_path / "log", "--flag log", 10) == b""
    with pytest.raises(BdauditError, match="no safetensors file, or cut short: 0 bytes"):
        header_of(Silent(), 0, "log")
    monkeypatch.setattr(Reader, "open", lambda *_: Silent())
    assert Reader(tmp_path, {"log": 0}).content("log", 10) == b""


@pytest.mark.parametrize(("second", "refused"), [(13, False), (11, True)])
def test_bytes_are_counted_over_all_pieces_of_a_file(tmp_path: Path, second: int, refused: bool) -> None:
    """Of 32 MiB, four stand at the beginning and the rest behind a hole: half of it, 16, is enough."""
    path = tmp_path / "pieces"
    with path.open("wb") as file:
        file.write(b"x" * (4 << 20))
        file.seek(12 << 20)
        file.write(b"x" * (second << 20))
        file.truncate(32 << 20)
    with pytest.raises(UsageError, match="mostly a hole") if refused else contextlib.nullcontext():
        open_file(path, "--flag").close()
