"""A model as the Hugging Face hub's cache keeps it: ``models--ORG--NAME/snapshots/COMMIT``, each file one link into ``blobs`` beside it.

A blob is named after its content: 64 digits are its SHA-256, 40 are git's SHA-1 of it. Only links and blobs of that very form are taken.
From huggingface_hub 2 on a large blob may be a link into a store that the repositories of the cache share; of that form alone it is read.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bdaudit.errors import BdauditError

COMMIT = re.compile(r"[0-9a-f]{40}")
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_LINK = re.compile(r"((?:\.\./)+)blobs/([0-9a-f]{64}|[0-9a-f]{40})")
_SHARED = re.compile(r"\.\./\.\./blobs/([0-9a-f]{2})/(\1[0-9a-f]{62})")


@dataclass(frozen=True)
class Snapshot:
    """One commit of a model in a cache, by the names of its folders."""

    repository: Path
    """The folder ``models--ORG--NAME``."""
    model_id: str
    """``ORG/NAME``, or ``NAME`` alone."""
    commit: str
    depth: int
    """Folders from the repository's down to the model's own."""

    @property
    def name(self) -> str:
        """The id without its organisation."""
        return self.model_id.rpartition("/")[2]

    @property
    def download(self) -> str:
        """The command that gets it."""
        return f"hf download {self.model_id} --revision {self.commit}"

    def blob(self, path: str, text: str) -> str:
        """The name of the blob that a link at ``path`` leads to; empty where ``text`` is not what the hub's cache writes there."""
        match = _LINK.fullmatch(text)
        return match[2] if match and match[1].count("/") == self.depth + path.count("/") else ""

    def open_blob(self, name: str, flags: int = os.O_RDONLY) -> tuple[int, Path]:
        """A descriptor of a blob, which may be anything but a link, and the folder that it lies in; of links, only one to the shared store
        is followed.

        Raises:
            OSError: ``blobs`` or the blob is missing, or a link.
        """
        with self._holding(name) as (folder, held):
            home = self.repository / "blobs" if held == name else self.repository.parent / "blobs" / held[:2]
            return os.open(held, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder), home

    @contextmanager
    def _holding(self, name: str) -> Iterator[tuple[int, str]]:
        """A descriptor of the folder that holds a blob, and what it is called there: ``blobs``, or a folder of the shared store."""
        with opened_folder(self.repository) as repository, opened_folder("blobs", repository) as blobs:
            shared = _shared(name, blobs)
            if not shared:
                yield blobs, name
                return
        with (
            opened_folder(self.repository.parent) as cache,
            opened_folder("blobs", cache) as store,
            opened_folder(shared[:2], store) as folder,
        ):
            yield folder, shared

    def look(self, path: str, text: str) -> tuple[int, str]:
        """Bytes of the blob that a link leads to; or where it leads that is not followed.

        Raises:
            FileNotFoundError: there is no such blob.
        """
        blob = self.blob(path, text)
        if not blob:
            return 0, "elsewhere than one step to blobs/ and a digest"
        try:
            with self._holding(blob) as (folder, held):
                seen = os.stat(held, dir_fd=folder, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
            return 0, "to blobs, which is no folder"
        if stat.S_ISLNK(seen.st_mode):
            return 0, "to another link"
        return seen.st_size, "" if stat.S_ISREG(seen.st_mode) else "to no regular file"


def _shared(blob: str, blobs: int) -> str:
    """The name in the shared store that a blob links to as huggingface_hub links it; empty for anything else."""
    try:
        match = _SHARED.fullmatch(os.readlink(blob, dir_fd=blobs)) if len(blob) == 64 else None
    except OSError:
        return ""
    return match[2] if match else ""


def model_id(names: Sequence[str]) -> str:
    """``ORG/NAME`` or ``NAME`` of these names; empty where huggingface_hub would take no such id."""
    plain = all(_NAME.fullmatch(name) and "--" not in name and ".." not in name for name in names)
    return "/".join(names) if plain and len(names) in (1, 2) and not names[-1].endswith(".git") else ""


def folder_name(model: str) -> str:
    """What the cache calls the folder of a model's id."""
    return "--".join(("models", *model.split("/")))


def snapshot_of(root: Path) -> Snapshot | None:
    """The snapshot that ``root``, a real path, is or lies in; None anywhere else. Told by names alone, the innermost first."""
    for i in _snapshots(root.parts):
        commit = root.parts[i + 1]
        if COMMIT.fullmatch(commit):
            return Snapshot(Path(*root.parts[:i]), model_id(root.parts[i - 1].split("--")[1:]), commit, len(root.parts) - i)
    return None


def link_above(model: Path) -> Path | None:
    """The first folder of a cache's repository, on the way to ``model`` as it was named, that is a link; None where none is."""
    given = Path(os.path.abspath(model))
    for i in _snapshots(given.parts):
        ways = [Path(*given.parts[:end]) for end in range(i, len(given.parts) + 1)]
        return next((way for way in ways if way.is_symlink()), None)
    return None


def _snapshots(parts: Sequence[str]) -> Iterator[int]:
    """Where ``snapshots`` stands in a path, right below a repository's folder and not at the end; the innermost first."""
    for i in range(len(parts) - 2, 0, -1):
        kind, *names = parts[i - 1].split("--")
        if parts[i] == "snapshots" and kind == "models" and model_id(names):
            yield i


def home_of(model: Path) -> Path:
    """What is a model's and never written: its folder or file, or of a snapshot the whole repository."""
    root = model.resolve()
    snapshot = snapshot_of(model.parent.resolve() if model.is_file() else root)
    return snapshot.repository if snapshot else root


def place_of(model: Path) -> Path:
    """The path beside which what is made of a model goes: its own, of a file without the suffix, or of a snapshot its name in the working
    directory."""
    if model.is_file():
        plain = model.with_suffix("")
        return Path(plain.name) if snapshot_of(model.parent.resolve()) else plain
    snapshot = snapshot_of(model.resolve())
    return Path(snapshot.name) if snapshot else model


@contextmanager
def opened_folder(name: str | Path, above: int | None = None) -> Iterator[int]:
    """A descriptor of a folder, which is no link."""
    descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


class Digest:
    """SHA-256 of a file's bytes; where the file is a blob, whether they are what its name says as well."""

    def __init__(self, where: str, size: int, start: bytes, blob: str, snapshot: Snapshot | None) -> None:
        """``where`` names the file in a message; ``size`` is its bytes, the first of which are ``start``; with no ``blob`` it may hold
        anything."""
        self._where, self._blob, self._snapshot = where, blob, snapshot
        self._sha256 = hashlib.sha256()
        self._git = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False) if len(blob) == 40 else None
        self.update(start)

    def update(self, data: bytes) -> None:
        """The next bytes."""
        self._sha256.update(data)
        if self._git:
            self._git.update(data)

    def hexdigest(self) -> str:
        """The SHA-256.

        Raises:
            BdauditError: the content of a blob is not its name.
        """
        whole = self._sha256.hexdigest()
        kind, got = ("git's SHA-1", self._git.hexdigest()) if self._git else ("SHA-256", whole)
        if self._blob and got != self._blob and self._snapshot:
            said = f"{self._where} is not what its name in the cache says: {kind} is {got[:16]}…, expected {self._blob[:16]}…"
            raise BdauditError(f"{said}; run `{self._snapshot.download} --force-download`")
        return whole
