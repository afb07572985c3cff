"""Hostile snapshots of the hub's cache, and ids that ask for them, made on the spot from a valid cache that huggingface_hub laid out."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

from bdaudit.errors import ExitCode
from bdaudit.untrusted import hub_cache
from bdaudit.untrusted.inspect import inspect
from tests.untrusted import tiny
from tests.untrusted.cached import COMMIT, lay_out, relink
from tests.untrusted.edits import TEXT, UNET, code, pickled

Edit = Callable[[Path, Path], object]
"""Of a snapshot's folder, and of a file outside the cache that nothing may open."""
MODEL_ID, OTHER = "org/name", "f" * 40


@dataclass(frozen=True)
class CacheCase:
    """A cache that is not as huggingface_hub leaves it, and what is asked of it."""

    kind: str
    name: str
    code: ExitCode
    edit: Edit
    asked: str = ""
    """The id that is looked up; the snapshot's own folder where there is none."""

    def open(self, snapshot: Path) -> object:
        """As a run opens it, with the process's cache where ``snapshot`` lies."""
        found = hub_cache.find(self.asked, "MODEL") if self.asked else snapshot
        return inspect(found or Path(self.asked))


def cache(folder: Path) -> tuple[Path, Path]:
    """A valid snapshot in a new cache, and a file outside that touches no canary unless it is run."""
    os.makedirs(folder / "hub/models--org--other/blobs")
    (folder / "outside").write_text(code(folder / "canary"))
    return lay_out(tiny.write_model(folder / "model"), folder / "hub"), folder / "outside"


def repository(snapshot: Path) -> Path:
    return snapshot.parents[1]


def blob(snapshot: Path, path: str) -> Path:
    """The blob that the link at ``path`` leads to."""
    return repository(snapshot) / "blobs" / os.path.basename(os.readlink(snapshot / path))


def move(path: Path, to: Path) -> Path:
    shutil.move(path, to)
    return to


def turned(path: Path, outside: Path) -> None:
    """What lies at ``path`` is moved out of the cache, and linked to."""
    path.symlink_to(move(path, outside.with_name("moved")))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)


def two_hops(snapshot: Path, outside: Path) -> None:
    target = blob(snapshot, UNET)
    target.symlink_to(os.path.relpath(move(target, target.with_name("other")), target.parent))


def inside(snapshot: Path, outside: Path) -> None:
    (snapshot / "unet/twin").symlink_to(os.readlink(snapshot / UNET))
    relink(snapshot / UNET, "twin")


def shared(snapshot: Path, edit: Callable[[Path], object] = lambda kept: None, text: str = f"../../blobs/ab/{'ab' * 32}") -> None:
    """The UNet's weights lie in the store that repositories share, as huggingface_hub 2 puts them there; then ``edit`` has its way."""
    target, store = blob(snapshot, UNET), snapshot.parents[2] / "blobs/ab"
    store.mkdir(parents=True)
    kept = move(target, store / ("ab" * 32))
    target.symlink_to(text)
    edit(kept)


def renamed(make: Callable[[str], str]) -> Edit:
    """The blob gets another name, and the link leads there."""

    def edit(snapshot: Path, outside: Path) -> None:
        target = blob(snapshot, UNET)
        move(target, target.with_name(make(target.name)))
        relink(snapshot / UNET, f"../../../blobs/{make(target.name)}")

    return edit


def leads(make: Callable[[Path, Path], str], path: str = UNET) -> Edit:
    return lambda snapshot, outside: relink(snapshot / path, make(blob(snapshot, path), outside))


def in_place(make: Callable[[Path], object], path: str = UNET) -> Edit:
    """Something else in place of a blob."""

    def edit(snapshot: Path, outside: Path) -> None:
        target = blob(snapshot, path)
        target.unlink()
        make(target)

    return edit


def listener(path: Path) -> None:
    with chdir(path.parent), socket.socket(socket.AF_UNIX) as bound:
        bound.bind(path.name)


def hole(path: Path) -> None:
    path.touch()
    os.truncate(path, 64 << 20)


LINKS: dict[str, Edit] = {
    "two hops": two_hops,
    "two hops, by a link inside": inside,
    "absolute": leads(lambda blob, outside: str(blob)),
    "absolute, out": leads(lambda blob, outside: str(outside)),
    "out": leads(lambda blob, outside: f"../../../../../{outside.name}"),
    "too shallow": leads(lambda blob, outside: f"../../blobs/{blob.name}"),
    "too deep": leads(lambda blob, outside: f"../../../../blobs/{blob.name}"),
    "too deep, and back": leads(lambda blob, outside: f"../../../../models--org--name/blobs/{blob.name}"),
    "another model's blob": leads(lambda blob, outside: f"../../../../models--org--other/blobs/{blob.name}"),
    "through its own folder": leads(lambda blob, outside: f"./../../../blobs/{blob.name}"),
    "a double slash": leads(lambda blob, outside: f"../../../blobs//{blob.name}"),
    "a slash at the end": leads(lambda blob, outside: f"../../../blobs/{blob.name}/"),
    "a newline at the end": leads(lambda blob, outside: f"../../../blobs/{blob.name}\n"),
    "a folder in blobs": leads(lambda blob, outside: f"../../../blobs/ab/{blob.name}"),
    "to blobs itself": leads(lambda blob, outside: "../../../blobs"),
    "another case of blobs": leads(lambda blob, outside: f"../../../Blobs/{blob.name}"),
    "upper case": renamed(str.upper),
    "41 digits": renamed(lambda name: name[:41]),
    "63 digits": renamed(lambda name: name[:63]),
    "digits of another script": renamed(lambda name: "٣" * 64),
    "the tokenizer's, out": leads(lambda blob, outside: str(outside), "tokenizer/vocab.json"),
    "the index's, out": leads(lambda blob, outside: str(outside), "model_index.json"),
}
FOLDERS: dict[str, Edit] = {
    "blobs": lambda snapshot, outside: turned(repository(snapshot) / "blobs", outside),
    "a part": lambda snapshot, outside: turned(snapshot / "unet", outside),
    "the snapshot": lambda snapshot, outside: turned(snapshot, outside),
    "snapshots": lambda snapshot, outside: turned(snapshot.parent, outside),
    "the repository": lambda snapshot, outside: turned(repository(snapshot), outside),
}
NO_FILES: dict[str, Edit] = {
    "a pipe": in_place(os.mkfifo),
    "a folder": in_place(Path.mkdir),
    "a socket": in_place(listener),
    "a pipe in place of the vocabulary": in_place(os.mkfifo, "tokenizer/vocab.json"),
    "a device": in_place(lambda path: path.symlink_to("/dev/zero")),
}
STORE: dict[str, Edit] = {
    "a link in it": lambda snapshot, outside: shared(snapshot, lambda kept: turned(kept, outside)),
    "itself a link": lambda snapshot, outside: shared(snapshot, lambda kept: turned(kept.parent.parent, outside)),
    "a folder of it a link": lambda snapshot, outside: shared(snapshot, lambda kept: turned(kept.parent, outside)),
    "a pipe in it": lambda snapshot, outside: shared(snapshot, lambda kept: (kept.unlink(), os.mkfifo(kept))),
    "from the wrong depth": lambda snapshot, outside: shared(snapshot, text=f"../../../blobs/ab/{'ab' * 32}"),
    "another folder than the digest's": lambda snapshot, outside: shared(snapshot, text=f"../../blobs/cd/{'ab' * 32}"),
    "a name that is no digest": lambda snapshot, outside: shared(snapshot, text=f"../../blobs/ab/{'AB' * 32}"),
}


def exchanged(snapshot: Path, outside: Path) -> None:
    one, other = blob(snapshot, UNET), blob(snapshot, TEXT)
    aside = move(one, one.with_name("aside"))
    move(other, one), move(aside, other)


CONTENT: dict[str, Edit] = {
    "a bit of the UNet": lambda snapshot, outside: flip(blob(snapshot, UNET)),
    "a bit of the text encoder": lambda snapshot, outside: flip(blob(snapshot, TEXT)),
    "a bit of the merges": lambda snapshot, outside: flip(blob(snapshot, "tokenizer/merges.txt")),
    "a bit of the index": lambda snapshot, outside: flip(blob(snapshot, "model_index.json")),
    "two blobs exchanged": exchanged,
    "a bit in the store that repositories share": lambda snapshot, outside: shared(snapshot, flip),
    "a hole of 64 MB": in_place(hole),
    "an empty file": in_place(Path.touch),
}
LACKING: dict[str, Edit] = {
    "no weights": in_place(lambda path: path.with_name(f"{path.name}.0a0a0a0a.incomplete").touch()),
    "no config": in_place(lambda path: None, "vae/config.json"),
    "no vocabulary": in_place(lambda path: None, "tokenizer/vocab.json"),
    "no part": lambda snapshot, outside: shutil.rmtree(snapshot / "vae"),
}


def ref(snapshot: Path) -> Path:
    return repository(snapshot) / "refs/main"


def in_ref(make: Callable[[Path], object]) -> Edit:
    def edit(snapshot: Path, outside: Path) -> None:
        ref(snapshot).unlink()
        make(ref(snapshot))

    return edit


def says(content: bytes) -> Edit:
    return lambda snapshot, outside: ref(snapshot).write_bytes(content)


REFS: dict[str, Edit] = {
    "empty": says(b""),
    "a way up": says(b"../../../../" + COMMIT.encode()),
    "a way out": says(b"../" * 9 + b"tmp"),
    "a line feed": says(COMMIT.encode() + b"\n"),
    "39 digits": says(COMMIT[:39].encode()),
    "upper case": says(COMMIT.upper().encode()),
    "no text": says(b"\xff" * 40),
    "digits of another script": says("٣".encode() * 20),
    "NULs": says(bytes(40)),
    "10 MB": says(b"x" * (10 << 20)),
    "a commit that is not there": says(OTHER.encode()),
}
NO_REFS: dict[str, Edit] = {
    "a link": lambda snapshot, outside: turned(ref(snapshot), outside),
    "a link to the file outside": in_ref(lambda path: path.symlink_to(path.parents[3] / "outside")),
    "a pipe": in_ref(os.mkfifo),
    "a hole": in_ref(hole),
    "in a folder that is a link": lambda snapshot, outside: turned(ref(snapshot).parent, outside),
    "of a repository that is a link": lambda snapshot, outside: turned(repository(snapshot), outside),
    "of snapshots that are a link": lambda snapshot, outside: turned(snapshot.parent, outside),
    "of a snapshot that is a link": lambda snapshot, outside: turned(snapshot, outside),
}
REVISIONS = (
    "..",
    "../refs/main",
    "../../models--org--other",
    "./main",
    "/main",
    "main/",
    "main/x",
    "refs",
    "main\n",
    COMMIT[:39],
    "0" * 40,
)
NO_IDS = ("org/..", "../name", "org//name", "./org/name", "org/na--me", "~/name", "org\\name", "org/name\n", "org/name@", "org/other/x")


def linked(snapshot: Path, outside: Path) -> None:
    """A file that code would be run from, in place of one of the model's."""
    (snapshot / "unet/diffusers.py").symlink_to(f"../../../blobs/{'c' * 40}")
    (repository(snapshot) / "blobs" / ("c" * 40)).write_text(code(outside.with_name("canary")))


def pickle(snapshot: Path, outside: Path) -> None:
    blob(snapshot, UNET).write_bytes(pickled(outside.with_name("canary")))


def untouched(snapshot: Path, outside: Path) -> None:
    """The cache is as it should be; what is asked is not."""


def cases() -> list[CacheCase]:
    refused, error, usage = ExitCode.REFUSED, ExitCode.ERROR, ExitCode.USAGE
    found = []
    for kind, ends, edits in (
        ("links that no cache makes", refused, LINKS),
        ("folders of a cache that are links", refused, FOLDERS),
        ("blobs that are no files", refused, NO_FILES),
        ("the store that repositories share", refused, STORE),
        ("blobs whose content is not their name", error, CONTENT),
        ("downloads that are not whole", error, LACKING),
    ):
        found += [CacheCase(kind, name, ends, edit) for name, edit in edits.items()]
    found += [CacheCase("revisions' files that are damaged", name, error, edit, MODEL_ID) for name, edit in REFS.items()]
    found += [CacheCase("revisions' files that are none", name, refused, edit, MODEL_ID) for name, edit in NO_REFS.items()]
    found += [CacheCase("revisions that are ways", ascii(r), usage, untouched, f"{MODEL_ID}@{r}") for r in REVISIONS]
    found += [CacheCase("ids that are none", ascii(text), usage, untouched, text) for text in NO_IDS]
    for asked in ("", MODEL_ID):
        by = "by its id" if asked else "by its folder"
        found.append(CacheCase("code in a cache", f"a module of its own, {by}", refused, linked, asked))
        found.append(CacheCase("code in a cache", f"a pickle as weights, {by}", refused, pickle, asked))
    return found


CASES = cases()
