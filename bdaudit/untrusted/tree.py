"""A directory that may be hostile, read without following, running or unpacking anything: walk, bounded bytes, bounded JSON.

Knows nothing of models. Nothing here opens what is not a regular file inside the directory.
"""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from bdaudit.errors import BdauditError, RefusedError
from bdaudit.untrusted.holes import mostly_hole
from bdaudit.untrusted.hub_snapshot import Digest, Snapshot, snapshot_of
from bdaudit.untrusted.json_text import decoded

MAX_ENTRIES = 200_000
MAX_FOLDERS_DEEP = 8
MAX_JSON_DEPTH = 64
CONFIG_LIMITS = (1 << 20, 50_000)
"""Bytes, and commas plus brackets, of a config; the largest in use are shard indexes of about 200 kB."""

_PICKLE = re.compile(
    rb"\x80[\x02-\x05]|(c|[(\]}][\s\S]*?[ci])[\w.]+\n[\w.]+\n|\([dl](p\d+\n|[(VSILFN])|[\]})]([qr(]|\.\Z)"  # protocol 2 on; a class; 0; 1
    rb"|PK\x03\x04|PK\x05\x06|\x1f\x8b|BZh|7z\xbc\xaf|\xfd7zXZ"
)
_LED_AWAY = "{} has become a link that leads out of the directory"
_CONTROL = ("has a control character in its name; rename it", "names hold a control character; rename them")
_HIDDEN_CODE = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def shown(text: object, longest: int = 200) -> str:
    """``text`` for a message: control, bidi, zero-width and unpaired surrogate characters as escapes, and not too long."""
    said = str(text)
    cut = said[:longest]
    if not cut.isprintable():  # nearly all are, and a model has thousands of names
        cut = "".join(c if c.isprintable() else _HIDDEN_CODE.get(c, c.encode("unicode_escape").decode()) for c in cut)
    return cut + ("…" if len(said) > longest else "")


def looks_pickled(head: bytes) -> bool:
    """Whether ``head`` starts as a pickle, a zip (``torch.save``) or another archive does."""
    return _PICKLE.match(head) is not None


def is_pointer(head: bytes) -> bool:
    """Whether ``head`` starts as what Git LFS leaves in place of a file that was not fetched."""
    return head.startswith(b"version https://git-lfs.github.com/spec/")


def pointer_said(*paths: str) -> str:
    """What to do about Git LFS pointers, in one line."""
    said = summed(paths, "is a Git LFS pointer, the file itself was not fetched", "files are Git LFS pointers, they were not fetched")
    return f"{said}; run `git lfs install` and `git lfs pull` in the clone"


class PointerError(BdauditError):
    """``path`` holds what Git LFS leaves in place of a file that was not fetched."""

    def __init__(self, path: str) -> None:
        super().__init__(pointer_said(path))
        self.path = path


def summed(paths: Sequence[str], one: str, many: str) -> str:
    """A line for all ``paths`` of one kind: what ``one`` is, or how ``many`` there are and which is the first."""
    return f"{shown(paths[0])} {one}" if len(paths) == 1 else f"{len(paths):,} {many}, the first is {shown(paths[0])}"


@dataclass(frozen=True)
class Link:
    """A link that is not followed."""

    one: str
    """Why it is not, and why ``many`` of its kind are not."""
    many: str
    target: str
    outside: bool = False
    """Whether there is something at its end, and it lies outside the directory."""
    hidden: bool = False
    """Whether it leads to a folder inside that is not entered."""
    download: str = "hf download ID --local-dir DIR"
    """The command that brings the files, and no links, into a directory."""


@dataclass
class Tree:
    """What one walk saw."""

    files: dict[str, int] = field(default_factory=dict)
    """Regular files, links to such files inside the directory included: relative path → bytes."""
    odd: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    """What is no reason to go on, for one and for many of its kind → paths."""
    links: dict[str, Link] = field(default_factory=dict)
    """Relative path → a link that is no link to a file inside the directory."""
    hidden: list[str] = field(default_factory=list)
    """Top-level folders that start with a dot; not entered."""
    deep: list[str] = field(default_factory=list)
    """Folders so far below the model's that no loader looks there; not entered."""
    absent: list[str] = field(default_factory=list)
    """Files of a cache snapshot whose blob is not there."""

    def refused(self, parts: Collection[str]) -> list[str]:
        """Why it is refused, a line a kind: what is no file, and links in ``parts``, or in the place of one."""
        lines = [summed(paths, *said) for said, paths in self.odd.items()]
        away: dict[tuple[str, str], list[str]] = {}
        for path, link in sorted(self.links.items()):
            if path.split("/")[0] in parts:
                away.setdefault((link.one, link.many), []).append(path)
        for said, paths in away.items():
            first = self.links[paths[0]]
            lines.append(f"{summed(paths, *said)} → {first.target}; get the model without links: `{first.download}`")
        return lines


def walk(root: Path) -> Tree:
    """List ``root`` (resolved) once, opening no file.

    Raises:
        BdauditError: more than 200,000 entries, or a folder that cannot be listed.
    """
    tree, folders, seen, snapshot = Tree(), [""], 0, snapshot_of(root)
    while folders:
        prefix = folders.pop()
        try:
            with os.scandir(root / prefix) as entries:
                for entry in entries:
                    seen += 1
                    if seen > MAX_ENTRIES:
                        raise BdauditError(f"{shown(root)} holds more than {MAX_ENTRIES} files; name the model's own directory")
                    if any(unicodedata.category(c) == "Cc" for c in entry.name):
                        tree.odd.setdefault(_CONTROL, []).append(prefix + entry.name)
                    _sort_in(root, prefix + entry.name, entry, tree, folders, snapshot)
        except OSError as error:
            raise BdauditError(f"cannot list {shown(prefix or root)}: {error.strerror}") from error
    tree.files = dict(sorted(tree.files.items()))
    return tree


def _sort_in(root: Path, path: str, entry: os.DirEntry[str], tree: Tree, folders: list[str], snapshot: Snapshot | None) -> None:
    if entry.is_symlink():
        _follow_cached(snapshot, path, os.readlink(root / path), tree) if snapshot else _follow(root, path, tree)
    elif entry.is_dir(follow_symlinks=False):
        if path.startswith("."):
            tree.hidden.append(path)
            return
        if path.count("/") >= MAX_FOLDERS_DEEP:
            tree.deep.append(path)
            return
        folders.append(path + "/")
    elif entry.is_file(follow_symlinks=False):
        tree.files[path] = entry.stat(follow_symlinks=False).st_size
    else:
        kind = kind_of(entry.stat(follow_symlinks=False).st_mode)
        tree.odd.setdefault((f"is {kind}, not a file; remove it", f"entries are {kind} each, not a file; remove them"), []).append(path)


def _follow(root: Path, path: str, tree: Tree) -> None:
    target = shown(os.readlink(root / path))
    try:
        real = Path(os.path.realpath(root / path, strict=True))
        mode = real.stat()
    except OSError:
        tree.links[path] = _leading("nowhere", target)
        return
    if not real.is_relative_to(root):
        tree.links[path] = _leading("out of the directory", target, outside=True)
    elif not stat.S_ISREG(mode.st_mode):
        hidden = real != root and real.relative_to(root).parts[0].startswith(".")
        tree.links[path] = _leading(f"to {kind_of(mode.st_mode)}", target, hidden=hidden)
    else:
        tree.files[path] = mode.st_size


def _leading(where: str, target: str, *, outside: bool = False, hidden: bool = False) -> Link:
    return Link(f"is a link that leads {where}", f"links lead {where}", target, outside, hidden)


def _follow_cached(snapshot: Snapshot, path: str, text: str, tree: Tree) -> None:
    """Of a snapshot's links, only those are followed that the hub's cache makes."""
    try:
        size, where = snapshot.look(path, text)
    except FileNotFoundError:
        tree.absent.append(path)
        return
    if where:
        tree.links[path] = replace(_leading(where, shown(text, 24), outside=True), download=f"{snapshot.download} --local-dir DIR")
    else:
        tree.files[path] = size


def kind_of(mode: int) -> str:
    """What a file that is no regular one is called."""
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
    return "a folder" if stat.S_ISDIR(mode) else kinds.get(stat.S_IFMT(mode), "a special file")


@dataclass
class Reader:
    """Reads files of one directory and remembers what it checked, so that the digest is of those very bytes."""

    root: Path
    files: dict[str, int]
    checked: dict[str, bytes] = field(default_factory=dict)
    """Relative path → the leading bytes that were checked; all of them for anything but weights."""
    blobs: dict[str, str] = field(default_factory=dict)
    """Relative path → the blob that was opened for it, in a cache snapshot."""

    def source(self, path: str) -> Path | bytes:
        """Where a file lies; what it holds, where it lies nowhere."""
        return self.root / path

    def open(self, path: str) -> BinaryIO:
        """Open a regular file, and nothing else, without waiting for a writer.

        Raises:
            BdauditError: it cannot be opened.
            RefusedError: it is no regular file (any more).
        """
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        try:
            handle, home = self._handle(path, flags)
        except OSError as error:
            raise BdauditError(f"cannot open {shown(path)}: {error.strerror}") from error
        try:
            _check_handle(handle, path, home)
        except BdauditError:
            os.close(handle)
            raise
        return os.fdopen(handle, "rb")

    def _handle(self, path: str, flags: int) -> tuple[int, Path]:
        """A descriptor of what lies at ``path``, and the folder that it must lie in."""
        snapshot = snapshot_of(self.root)
        if snapshot is None or not (self.root / path).is_symlink():
            return os.open(self.root / path, flags), self.root
        self.blobs[path] = blob = snapshot.blob(path, os.readlink(self.root / path))
        if not blob:
            raise RefusedError([_LED_AWAY.format(shown(path))])
        return snapshot.open_blob(blob, flags)

    def digest(self, path: str, file: BinaryIO) -> Digest:
        """The digest of an open file, begun with the bytes that were checked."""
        size, start = os.fstat(file.fileno()).st_size, self.checked.get(path, b"")
        return Digest(shown(path), size, start, self.blobs.get(path, ""), snapshot_of(self.root))

    def is_whole(self, path: str) -> bool:
        """Whether the file is there, regular and on the disk, not a hole that claims to be one."""
        try:
            self.open(path).close()
        except BdauditError:
            return False
        return True

    def content(self, path: str, limit: int) -> bytes:
        """All of a small file.

        Raises:
            BdauditError: missing, or longer than ``limit`` bytes.
            RefusedError: a pickle or an archive under another name.
        """
        if path not in self.files:
            raise BdauditError(f"{shown(path)} is missing")
        with self.open(path) as file:
            data = file.read(limit + 1) or b""  # None where there is nothing yet, as of the kernel's log
        if looks_pickled(data[:512]):
            raise RefusedError([f"{shown(path)} is a pickle or an archive under another name"])
        if is_pointer(data):
            raise PointerError(path)
        if len(data) > limit:
            raise BdauditError(f"{shown(path)} is longer than {limit:,} bytes; no model needs that")
        self.checked[path] = data
        if path in self.blobs:
            self.sha256(path)
        return data

    def json(self, path: str, limits: tuple[int, int] = CONFIG_LIMITS) -> dict[str, Any]:
        """A JSON object within ``limits`` (bytes, commas plus brackets); raises as ``content`` and ``parse_json``."""
        value = parse_json(self.content(path, limits[0]), path, limits[1])
        if not isinstance(value, dict):
            raise BdauditError(f"{shown(path)}: expected a JSON object, got {type(value).__name__}")
        return value

    def sha256(self, path: str) -> str:
        """Digest of the bytes that were checked, followed by the rest of the file as it is now."""
        with self.open(path) as file:
            digest = self.digest(path, file)
            file.seek(len(self.checked.get(path, b"")))
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()


def _check_handle(handle: int, path: str, home: Path) -> None:
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        raise RefusedError([f"{shown(path)} is no longer a regular file"])
    opened = Path(f"/proc/self/fd/{handle}")  # a link swapped in since the walk is followed by the kernel, not by us
    if opened.is_symlink() and not Path(os.readlink(opened)).is_relative_to(home):
        raise RefusedError([_LED_AWAY.format(shown(path))])
    if mostly_hole(handle):
        raise BdauditError(f"{shown(path)} is mostly a hole: it claims {os.fstat(handle).st_size:,} bytes that are not on the disk")


def parse_json(data: bytes, where: str, items: int, *, finite: bool = False) -> Any:
    """UTF-8 JSON with unique keys, at most ``items`` commas and brackets, nested at most 64 deep; ``finite``: no number that is none.

    Raises:
        BdauditError: anything else.
    """
    if len(data) > items and data.count(b",") + data.count(b"[") + data.count(b"{") > items:
        raise BdauditError(f"{shown(where)}: more than {items:,} items; no model needs that")
    try:
        value, depth = decoded(data, finite=finite)
    except RecursionError as error:
        raise BdauditError(f"{shown(where)}: JSON nested too deep") from error
    except ValueError as error:
        raise BdauditError(f"{shown(where)} is not valid JSON: {shown(error)}") from error
    if depth > MAX_JSON_DEPTH:
        raise BdauditError(f"{shown(where)}: JSON nested more than {MAX_JSON_DEPTH} deep")
    return value
