"""Decide what a loader would open, and allow only what is safe: before torch is imported, and without opening a pickle.

Refuses to know tensors. Code, custom classes, links out of the directory and weights that need unpickling end in exit 5.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath

from bdaudit.errors import BdauditError, InconclusiveError, UsageError
from bdaudit.untrusted import leftovers, rules
from bdaudit.untrusted.formats import addition
from bdaudit.untrusted.formats.directory import INDEX, Opened, led_away, open_directory
from bdaudit.untrusted.formats.weight_files import spelled
from bdaudit.untrusted.hub_cache import explain, lacking, snapshot_at
from bdaudit.untrusted.inspect_file import inspect_file, verify_files
from bdaudit.untrusted.inspection import File, Inspection, made_of
from bdaudit.untrusted.layouts.layout import NEVER_LOADED, Size
from bdaudit.untrusted.leftovers import Leftover
from bdaudit.untrusted.other_weights import DETERMINED, Audited, look
from bdaudit.untrusted.tree import MAX_FOLDERS_DEEP, Reader, Tree, shown, summed, walk

__all__ = ["File", "Inspection", "inspect", "verify_unchanged"]
_LARGE, _OTHERS = 64 << 20, 1 << 30
"""Bytes of one, and of all, of the files that are hashed though no loader opens them."""


def inspect(
    path: Path,
    *,
    variant: str = "",
    strict: bool = False,
    allow_pickle: bool = False,
    size: Size | None = None,
    config: Path | None = None,
    parts: Mapping[str, Path] | None = None,
    trusted: Collection[str] = (),
) -> Inspection:
    """Check whatever a loader would open of a directory or of a single file, and hash what makes up the model.

    ``variant`` is the one of the weights that is loaded, ``full`` for those without one, where a part has it; ``strict`` refuses a pickle
    that nothing would open; ``allow_pickle`` lets a model without safetensors come from one ``.bin`` that holds tensors and nothing else;
    ``size`` is the pictures' width and height where it is not to be the pipeline's own. ``config`` is a directory that has what a single
    file lacks, ``parts`` are files of its parts; ``trusted`` are hashes of chat templates that a person lets through.

    Raises:
        UsageError: neither directory nor file, or no ``model_index.json`` in it; no part has the variant.
        RefusedError: loading would run code, unpickle, or leave the directory (of a cache snapshot, its blobs); all reasons at once.
        BdauditError: damaged, too large, or a config that its weights contradict.
        InconclusiveError: safe, but of no family that can be audited.
    """
    if path.exists() and not path.is_dir():
        return inspect_file(path, variant=variant, allow_pickle=allow_pickle, size=size, config=config, parts=parts or {})
    return _inspect_directory(path, variant, strict, allow_pickle, size, frozenset(trusted))


def _inspect_directory(
    directory: Path, variant: str, strict: bool, allow_pickle: bool, size: Size | None, trusted: frozenset[str]
) -> Inspection:
    """Walk the directory once."""
    if not directory.is_dir():
        raise UsageError(f"{shown(directory)} is not a directory; expected a model in the diffusers format")
    snapshot = snapshot_at(directory)
    root = directory.resolve()
    tree = walk(root)
    found = rules.Findings(refused=led_away(tree))
    reader = Reader(root, tree.files)
    if INDEX not in tree.files and not found.refused:
        alone = addition.described_in(reader)
        if alone:
            raise InconclusiveError(f"{shown(directory)}: {alone}")
        said = f"{shown(directory)} has no {INDEX}; expected a model in the diffusers format{_below(tree, directory)}"
        raise UsageError("; ".join([said, *lacking(snapshot, reader, tree)]))
    opened = open_directory(reader, found, variant=variant, allow_pickle=allow_pickle, size=size, trusted=trusted)
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
    return made_of(
        opened,
        seen,
        files,
        path=directory,
        variants=opened.variants,
        loaded=loaded,
        determined=tuple(map(shown, seen.notes.get(DETERMINED, ()))),
        unused_pickles=tuple(shown(path) for path in pickles),
        notes=tuple(_notes(tree, {f.path for f in files}, opened, seen) + found.notes),
        names=frozenset(tree.files),
        snapshot=snapshot,
        trusted=trusted,
    )


def verify_unchanged(inspection: Inspection) -> None:
    """Hash again what loading opened, to be called when it is loaded: the file that was checked is the file that was loaded.

    Raises:
        BdauditError: a file changed, came or went since the inspection.
        RefusedError: one is no regular file any more, or a link out of the directory.
    """
    if inspection.pieces:
        verify_files(inspection)
        return
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
    notes.append(_note(f"folders more than {MAX_FOLDERS_DEEP} deep, not entered", tree.deep))
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
