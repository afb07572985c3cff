"""The Hugging Face hub's cache on this machine: which snapshot an id means, and whether its download is whole. Nothing is downloaded.

A revision is compared with names that were listed, and is never joined to a path.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from bdaudit.errors import BdauditError, RefusedError, UsageError
from bdaudit.untrusted.hub_snapshot import COMMIT, Snapshot, folder_name, link_above, model_id, opened_folder, snapshot_of
from bdaudit.untrusted.open_file import open_file
from bdaudit.untrusted.rules import Findings
from bdaudit.untrusted.tree import Reader, Tree, shown

_MAIN = "main"
"""The branch that an id without a revision means."""
_MOST, _INDEXES = 100_000, 64
"""Entries of a folder, and indexes that are asked for files of theirs that are not there."""


def cache_root() -> Path:
    """Where huggingface_hub keeps what it downloads, told by the same variables in the same order."""
    home = os.environ.get("HF_HOME", os.path.join(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface"))
    hub = os.environ.get("HUGGINGFACE_HUB_CACHE", os.path.join(_expanded(home), "hub"))
    return Path(_expanded(os.environ.get("HF_HUB_CACHE", hub)))


def _expanded(path: str) -> str:
    return os.path.expandvars(os.path.expanduser(path))


def split_id(text: str) -> tuple[str, str]:
    """``ORG/NAME[@REVISION]`` or ``NAME[@REVISION]`` as id and revision; two empty texts where it is none."""
    before, at, revision = text.partition("@")
    name = model_id(before.split("/"))
    return (name, revision) if name and bool(at) == bool(revision) else ("", "")


def download_of(text: str) -> str:
    """The command that gets what an id means."""
    name, revision = split_id(text)
    return f"hf download {name}" + (f" --revision {shlex.quote(shown(revision))}" if revision else "")


def find(text: str, what: str) -> Path | None:
    """The folder of the snapshot that an id means; None where ``text`` is no id, or the cache has nothing of that model.

    ``what`` is the argument in messages.

    Raises:
        UsageError: a path of that name exists too; the cache has the model, but no such revision.
        RefusedError: a folder of the cache, or the revision's file, is a link.
        BdauditError: the revision's file is damaged, or its snapshot is not there.
    """
    name, revision = split_id(text)
    root = Path(os.path.realpath(cache_root()))
    if not name or not os.path.isdir(root) or not os.access(root, os.R_OK | os.X_OK):
        return None
    with ExitStack() as stack:
        above = _opened(stack, root, "the hub's cache")
        if folder_name(name) not in above.names:
            return None
        if os.path.lexists(text):
            said = f"{what} {shown(text)} is a path here and a model in the hub's cache; say which"
            raise UsageError(f"{said}: ./{shown(text)}, or a folder in {shown(root / folder_name(name) / 'snapshots')}")
        repository = _entered(stack, folder_name(name), above)
        snapshots = _entered(stack, "snapshots", repository)
        asked = revision or _MAIN
        commit = asked if COMMIT.fullmatch(asked) else _commit_of(stack, asked, repository)
        if commit in snapshots.names:
            _entered(stack, commit, snapshots)
            return root / folder_name(name) / "snapshots" / commit
    if commit and commit != asked:
        said = f"the download of {name} is not complete: {shown(asked)} is commit {commit}, which is not there"
        raise BdauditError(f"{said}; get it with `{download_of(text)}`")
    there = ", ".join(each for each in sorted(snapshots.names)[:5] if COMMIT.fullmatch(each)) or "none"
    said = f"{what} {shown(text)}: the hub's cache has {name}, but no revision {shown(asked)}; expected a branch, a tag or a whole commit"
    raise UsageError(f"{said} that was downloaded (commits: {there}), or get it with `{download_of(text)}`")


def _commit_of(stack: ExitStack, revision: str, repository: _Folder) -> str:
    """The commit that a branch or a tag was when it was downloaded; empty where the cache knows no such."""
    folder = _entered(stack, "refs", repository)
    *above, last = revision.split("/")
    for name in above:
        folder = _entered(stack, name, folder)
    if last not in folder.names or stat.S_ISDIR(_mode(last, folder)):
        return ""
    said = f"{folder.said}/{shown(last)}"
    with open_file(last, said, error=lambda said: RefusedError([said]), follow=False, folder=folder.descriptor) as file:
        data = file.read(41)
    if not COMMIT.fullmatch(data.decode("latin-1")):
        raise BdauditError(f"{said} is damaged: expected 40 hexadecimal digits, got {shown(ascii(data), 60)}; remove it and download again")
    return data.decode("ascii")


@dataclass(frozen=True)
class _Folder:
    """A folder of the cache, open; one that is not there has no names."""

    said: str
    """What messages call it."""
    descriptor: int = -1
    names: frozenset[str] = frozenset()


def _opened(stack: ExitStack, name: str | Path, said: str, above: int | None = None) -> _Folder:
    try:
        descriptor = stack.enter_context(opened_folder(name, above))
        with os.scandir(descriptor) as entries:
            names = frozenset(entry.name for entry in islice(entries, _MOST + 1))
    except OSError as error:
        raise BdauditError(f"cannot list {said}: {error.strerror}") from error
    if len(names) > _MOST:
        raise BdauditError(f"{said} holds more than {_MOST:,} files; no cache does")
    return _Folder(said, descriptor, names)


def _entered(stack: ExitStack, name: str, above: _Folder) -> _Folder:
    """A folder in another; raises ``RefusedError`` where it is a link."""
    said = f"{above.said}/{shown(name)}"
    mode = _mode(name, above) if name in above.names else 0
    if stat.S_ISLNK(mode):
        raise RefusedError([f"{said} is a link, and a folder of the cache is none; it is not followed"])
    return _opened(stack, name, said, above.descriptor) if stat.S_ISDIR(mode) else _Folder(said)


def _mode(name: str, above: _Folder) -> int:
    try:
        return os.stat(name, dir_fd=above.descriptor, follow_symlinks=False).st_mode
    except OSError as error:
        raise BdauditError(f"cannot look at {shown(name)} in {above.said}: {error.strerror}") from error


def snapshot_at(directory: Path) -> Snapshot | None:
    """The snapshot that a directory is, None where it is none.

    Raises:
        RefusedError: it was named through a link that takes the place of a folder of the cache.
    """
    link = link_above(directory)
    if link is not None:
        said = f"{shown(link)} is a link, and a folder of the cache is none"
        raise RefusedError([f"{said}; name the folder that it leads to if you trust it"])
    return snapshot_of(directory.resolve())


def explain(found: Findings, snapshot: Snapshot | None, reader: Reader, tree: Tree, parts: Iterable[str]) -> None:
    """Note which snapshot it is; add what its download lacks to what is wrong, or to the notes where nothing is.

    Raises:
        BdauditError: a file whose content is not its name is what is wrong.
    """
    if snapshot is None:
        return
    if (found.damaged or found.unsupported) and not found.refused:
        for path in list(reader.blobs):
            reader.sha256(path)
    found.notes.append(f"the hub's cache has it as {snapshot.model_id}, commit {snapshot.commit}")
    (found.damaged or found.notes).extend(lacking(snapshot, reader, tree, parts))


def lacking(snapshot: Snapshot | None, reader: Reader, tree: Tree, parts: Iterable[str] = ()) -> list[str]:
    """What is not there of a download, with the command that gets it, as one line; none where nothing is known to be missing."""
    if snapshot is None:
        return []
    gone = [shown(path) for path in tree.absent]
    folders = {path.split("/")[0] for path in tree.files if "/" in path}
    gone += [f"{part}/ of model_index.json" for part in parts if part not in folders]
    gone += [shown(path) for path in _lacking_shards(Reader(reader.root, reader.files)) if path not in tree.absent]
    with ExitStack() as stack:
        blobs = _opened(stack, snapshot.repository, shown(snapshot.repository))
        begun = sum(name.endswith(".incomplete") for name in _entered(stack, "blobs", blobs).names)
    said = [f"not there: {', '.join(gone[:5])}{f' and {len(gone) - 5} more' if len(gone) > 5 else ''}"] if gone else []
    said += [f"{begun} file{'s' * (begun > 1)} begun and not finished (blobs/*.incomplete)"] if begun else []
    return [f"the download of {snapshot.model_id} is not complete, {'; '.join(said)}; run `{snapshot.download}`"] if said else []


def _lacking_shards(aside: Reader) -> list[str]:
    """Files that an index names and that are not there; an index that is none is told elsewhere, where it matters."""
    gone: set[str] = set()
    for index in [path for path in aside.files if path.endswith(".index.json")][:_INDEXES]:
        with suppress(BdauditError):
            named = aside.json(index).get("weight_map")
            folder = index[: index.rfind("/") + 1]
            gone |= {f"{folder}{name}" for name in (named.values() if isinstance(named, dict) else ()) if isinstance(name, str)}
    return sorted(gone - set(aside.files))
