"""Decide what a loader would open, and allow only what is safe: before torch is imported, and without opening a pickle.

Refuses to know tensors. Code, custom classes, links out of the directory and weights that need unpickling end in exit 5.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from bdaudit.errors import BdauditError, UsageError
from bdaudit.untrusted import layouts, leftovers, rules
from bdaudit.untrusted.fingerprint import TensorDigests, lengthened
from bdaudit.untrusted.formats.directory import INDEX, Opened, open_directory
from bdaudit.untrusted.formats.weight_files import spelled
from bdaudit.untrusted.hub_cache import explain, lacking, snapshot_at
from bdaudit.untrusted.hub_snapshot import Snapshot
from bdaudit.untrusted.layouts.layout import NEVER_LOADED, Layout, Size
from bdaudit.untrusted.leftovers import Leftover
from bdaudit.untrusted.other_weights import DETERMINED, Audited, Unaudited, look
from bdaudit.untrusted.tree import Reader, Tree, shown, summed, walk

_LARGE, _OTHERS = 64 << 20, 1 << 30
"""Bytes of one, and of all, of the files that are hashed though no loader opens them."""


@dataclass(frozen=True)
class File:
    path: str
    """Relative to the model directory."""
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """A directory that is safe to load, and what its loading opens."""

    path: Path
    """As given."""
    pipeline_class: str
    components: dict[str, tuple[str, str]]
    """Component → (library, class), the null ones left out."""
    variants: dict[str, str]
    """Part with weights → the variant that is loaded, empty for the full weights."""
    weights: dict[str, tuple[str, ...]]
    """Part → the weights files that are loaded."""
    parameters: dict[str, int] = field(repr=False)
    """Part → numbers in those files."""
    layout: Layout = field(repr=False)
    settings: dict[str, dict[str, Any]] = field(repr=False)
    """Path of a config → what of it a library is given, checked."""
    unknown: dict[str, tuple[str, ...]] = field(repr=False)
    """Path of a config → keys that no library is given."""
    latents: Size
    """Height and width of the latents that pictures are made from."""
    loaded: tuple[str, ...]
    """Every file that loading opens."""
    files: tuple[File, ...]
    """What makes up the model: small files, and the components' safetensors; never pickles, code or other frameworks' weights."""
    digest: str
    """SHA-256 over the paths and digests of ``files``, and over which of them are the weights that are loaded."""
    tensors: TensorDigests | None
    """Of the weights that are loaded; None where they are a pickle."""
    unaudited: tuple[Unaudited, ...]
    """Weights that a loader could take instead, and that the loaded ones do not determine."""
    determined: tuple[str, ...]
    """Weights that are the loaded ones again, or their cast."""
    unused_pickles: tuple[str, ...]
    """Never opened."""
    pickled: frozenset[str] = frozenset()
    """Models whose weights are a pickle of tensors alone, which ``--allow-pickle`` asked to load."""
    notes: tuple[str, ...]
    """What was seen and left alone."""
    names: frozenset[str] = field(repr=False)
    """Every file seen."""
    snapshot: Snapshot | None = None
    """Where it is one of the hub's cache."""

    @property
    def copied(self) -> tuple[File, ...]:
        """Of ``files``, what a model that is made of this one holds as well: no weights but those that are loaded, no folder of others."""
        parts = {*self.layout.parts, *NEVER_LOADED}
        left = [path for path in self.names if path not in self.loaded and leftovers.holds_weights(path)]
        folders = {path.split("/")[0] if path.split("/")[0] not in parts else path.rpartition("/")[0] for path in left if "/" in path}
        away = tuple(f"{folder}/" for folder in folders - parts)
        return tuple(f for f in self.files if f.path in self.loaded or not (f.path in left or f.path.startswith(away)))


def inspect(
    directory: Path, *, variant: str = "", strict: bool = False, allow_pickle: bool = False, size: Size | None = None
) -> Inspection:
    """Walk ``directory`` once, check whatever a loader would open, and hash what makes up the model.

    ``variant`` is the one of the weights that is loaded, ``full`` for those without one, where a part has it; ``strict`` refuses a pickle
    that nothing would open; ``allow_pickle`` lets a model without safetensors come from one ``.bin`` that holds tensors and nothing else;
    ``size`` is the pictures' width and height where it is not to be the pipeline's own.

    Raises:
        UsageError: no directory, or no ``model_index.json`` in it; no part has the variant.
        RefusedError: loading would run code, unpickle, or leave the directory (of a cache snapshot, its blobs); all reasons at once.
        BdauditError: damaged, too large, or a config that its weights contradict.
        InconclusiveError: safe, but of no family that can be audited.
    """
    if not directory.is_dir():
        raise UsageError(f"{shown(directory)} is not a directory; expected a model in the diffusers format")
    snapshot = snapshot_at(directory)
    root = directory.resolve()
    tree = walk(root)
    found = rules.Findings(refused=led_away(tree))
    reader = Reader(root, tree.files)
    if INDEX not in tree.files and not found.refused:
        said = f"{shown(directory)} has no {INDEX}; expected a model in the diffusers format{_below(tree, directory)}"
        raise UsageError("; ".join([said, *lacking(snapshot, reader, tree)]))
    opened = open_directory(reader, found, variant=variant, allow_pickle=allow_pickle, size=size)
    weights = {path for held in opened.sets.values() for path in held.files}
    pickles = tuple(p for p in tree.files if PurePosixPath(p).suffix.lower() in rules.PICKLE_SUFFIXES and p not in weights)
    if strict and pickles:
        found.refused.append(summed(pickles, "is a pickle (--strict)", "files are pickles (--strict)") + "; remove what nothing needs")
    explain(found, snapshot, reader, tree, opened.components)
    found.settle()
    assert opened.layout is not None, "what no layout covers has been raised"
    loaded = tuple(sorted({*reader.checked, *weights}))
    seen = look(reader, tree, opened.sets, opened.layout.models)
    kept = _kept(reader, opened.components, loaded)
    files = tuple(File(path, tree.files[path], seen.digests.get(path) or reader.sha256(path)) for path in kept)
    weights_files = {component: tuple(held.files) for component, held in opened.sets.items()}
    return Inspection(
        path=directory,
        pipeline_class=opened.pipeline_class,
        components=opened.components,
        variants=opened.variants,
        weights=weights_files,
        parameters={part: sum(tensor.count for tensor in held.tensors.values()) for part, held in opened.sets.items()},
        layout=opened.layout,
        settings=opened.settings,
        unknown=opened.unknown,
        latents=opened.latents,
        pickled=frozenset(c for c, paths in weights_files.items() if paths[0].endswith(".bin")),
        loaded=loaded,
        files=files,
        digest=_digest(files, weights),
        tensors=seen.tensors,
        unaudited=tuple(seen.unaudited),
        determined=tuple(map(shown, seen.notes.get(DETERMINED, ()))),
        unused_pickles=tuple(shown(path) for path in pickles),
        notes=tuple(_notes(tree, {f.path for f in files}, opened, seen) + found.notes),
        names=frozenset(tree.files),
        snapshot=snapshot,
    )


def verify_unchanged(inspection: Inspection) -> None:
    """Hash again what loading opened, to be called when it is loaded: the file that was checked is the file that was loaded.

    Raises:
        BdauditError: a file changed, came or went since the inspection.
        RefusedError: one is no regular file any more, or a link out of the directory.
    """
    root = inspection.path.resolve()
    tree = walk(root)
    found = rules.Findings(refused=led_away(tree))
    for path in sorted(inspection.names ^ set(tree.files)):
        found.damaged.append(f"{shown(path)} {'came' if path in tree.files else 'went'} while the model was being loaded")
    reader = Reader(root, tree.files)
    known = {file.path: file.sha256 for file in inspection.files}
    for path in inspection.loaded:
        with found.catching():
            if path in tree.files and reader.sha256(path) != known[path]:
                raise BdauditError(f"{shown(path)} changed while the model was being loaded")
    found.settle()


def _kept(reader: Reader, parts: dict[str, tuple[str, str]], loaded: tuple[str, ...]) -> list[str]:
    """The files that make up the model; what is large and belongs to no component, or is not on the disk, is left alone, unread."""
    room = [_OTHERS, 8 * sum(reader.files[path] for path in loaded) + _OTHERS]

    def belongs(path: str) -> bool:
        suffix, size = PurePosixPath(path).suffix.lower(), reader.files[path]
        if suffix in rules.PICKLE_SUFFIXES or suffix in leftovers.OTHER_FRAMEWORKS or rules.is_code(path):
            return False
        weighty = suffix in leftovers.WEIGHTS
        if weighty and not (path.split("/")[0] in parts and "/" in path):
            return False
        if (not weighty and size > _LARGE) or size > room[weighty] or not reader.is_whole(path):
            return False
        room[weighty] -= size
        return True

    return [path for path in reader.files if path in loaded or belongs(path)]


def _digest(files: tuple[File, ...], weights: set[str]) -> str:
    """Each list has its length before it, and each field of it: no name can stand for two."""
    rows = sorted(lengthened([os.fsencode(file.path), file.sha256.encode("ascii")]) for file in files)
    loaded = sorted(os.fsencode(path) for path in weights)
    return hashlib.sha256(lengthened([lengthened(rows), lengthened(loaded)])).hexdigest()


def led_away(tree: Tree) -> list[str]:
    """Why the tree is refused: what is no file, and links in a part of any family, or in the place of one. A line a kind."""
    return tree.refused({INDEX, *(part for layout in layouts.LAYOUTS.values() for part in layout.parts)})


def _below(tree: Tree, directory: Path) -> str:
    """Which folder inside is a model, where one is."""
    inside = sorted(path.removesuffix(f"/{INDEX}") for path in tree.files if path.endswith(f"/{INDEX}"))
    return f"; {shown(directory / inside[0], 100)} is one, name that" if inside else ""


def _notes(tree: Tree, kept: set[str], opened: Opened, seen: Audited) -> list[str]:
    said = dict(seen.notes)
    named = {path for paths in said.values() for path in paths} | {other.path for other in seen.unaudited}
    for path in tree.files:
        if path not in kept and path not in named and shown(path) not in named:
            said.setdefault(leftovers.row_of(Leftover(path, loadable=False)).words, []).append(path)
    notes = [_note(words, paths) for words, paths in said.items()]
    notes.append(_note("hidden folders, not entered", tree.hidden))
    notes.append(_note("components listed and not loaded", [part for part in NEVER_LOADED if part in opened.components]))
    for path, keys in opened.unknown.items():
        notes.append(_note(f"settings in {shown(path)} that are not known, and that nothing was built with", keys))
    if any(opened.variants.values()):
        each = ", ".join(f"{component} {spelled(variant)}" for component, variant in sorted(opened.variants.items()))
        notes.append(f"weights of a variant were taken: {each}")
    pickled = [path for held in opened.sets.values() for path in held.files if path.endswith(".bin")]
    notes.append(_note("loaded from pickles, as tensors alone", pickled))
    return [note for note in notes if note]


def _note(what: str, paths: tuple[str, ...] | list[str]) -> str:
    more = f" and {len(paths) - 5} more" if len(paths) > 5 else ""
    return f"{what}: {', '.join(shown(path) for path in paths[:5])}{more}" if paths else ""
