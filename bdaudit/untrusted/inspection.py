"""What an inspection found: a model that is safe to load, and what its loading opens. Values alone; ``inspect`` makes them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bdaudit.untrusted import leftovers
from bdaudit.untrusted.fingerprint import TensorDigests, lengthened
from bdaudit.untrusted.formats.directory import Opened
from bdaudit.untrusted.formats.pieces import Piece
from bdaudit.untrusted.formats.weight_files import WeightSet
from bdaudit.untrusted.hub_snapshot import Snapshot
from bdaudit.untrusted.layouts.layout import NEVER_LOADED, Layout, Size
from bdaudit.untrusted.other_weights import Audited, Unaudited
from bdaudit.untrusted.tree import Reader


@dataclass(frozen=True)
class File:
    path: str
    """Relative to the model directory."""
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """A directory, or a single file with what it lacks, that is safe to load, and what its loading opens."""

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
    largest: dict[str, int] = field(repr=False)
    """Part → numbers in the largest tensor of them."""
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
    trusted: frozenset[str] = frozenset()
    """Hashes of chat templates that a person lets through."""
    snapshot: Snapshot | None = None
    """Where it is one of the hub's cache."""
    pieces: Mapping[str, Mapping[str, Piece]] = field(default_factory=dict, repr=False)
    """Part → canonical name → where it lies, of the parts that lie in single files; none of a directory's own."""
    places: Mapping[str, tuple[Path, str]] = field(default_factory=dict, repr=False)
    """Of ``loaded``, what lies elsewhere than in the directory ``path``: folder, and path in it."""
    kinds: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    """Part → canonical name → the type that the tensor has in its file."""
    left_out: Mapping[str, frozenset[str]] = field(default_factory=dict, repr=False)
    """Single file → tensors of it that nobody looked at, or that are loaded ones again: no model that is made of this one holds them."""
    renamed: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    """Single file → tensors of a moving average that was chosen → what a model that is made of this one calls them: its weights."""
    config: Path | None = None
    """The directory that had what a single file lacks."""
    part_files: Mapping[str, Path] = field(default_factory=dict)
    """Part → the file that was named for it."""
    made: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """Of ``loaded``, what lies nowhere, and its content: settings that a single file leaves out."""

    def reader_of(self, name: str) -> tuple[Reader, str]:
        """A reader of one of ``files``, and what the file is called there."""
        root, path = self.places.get(name, (Path(self.path).resolve(), name))
        size = next((file.bytes for file in self.files if file.path == name), 0)
        return Reader(root, {path: size}), path

    def written_in(self, out: Path) -> tuple[File, ...]:
        """Of ``files``, those that lie in ``out``: of a directory all."""
        return tuple(file for file in self.files if not self.places or self.reader_of(file.path)[0].root.is_relative_to(out.resolve()))

    @property
    def sources(self) -> dict[str, Path | bytes]:
        """Where each of ``loaded`` lies, or what it holds."""
        home = Path(self.path)
        return {name: self.made.get(name, Path(*self.places.get(name, (home, name)))) for name in self.loaded}

    @property
    def copied(self) -> tuple[File, ...]:
        """Of ``files``, what a model that is made of this one holds as well: no weights but those that are loaded, no folder of others."""
        parts = {*self.layout.parts, *NEVER_LOADED}
        left = [path for path in self.names if path not in self.loaded and leftovers.holds_weights(path)]
        folders = {path.split("/")[0] if path.split("/")[0] not in parts else path.rpartition("/")[0] for path in left if "/" in path}
        away = tuple(f"{folder}/" for folder in folders - parts)
        return tuple(f for f in self.files if f.path in self.loaded or not (f.path in left or f.path.startswith(away)))


def made_of(opened: Opened, seen: Audited, files: Iterable[File], **own: Any) -> Inspection:
    """The inspection of what was opened and looked at; ``own`` is what a directory and a single file each say for themselves."""
    assert opened.layout is not None, "what no layout covers has been raised"
    weights, files = {part: tuple(held.files) for part, held in opened.sets.items()}, tuple(files)
    averages = {f"{part} {variant}" for part, variant in own["variants"].items() if variant and part in own.get("pieces", ())}
    return Inspection(
        pipeline_class=opened.pipeline_class,
        components=opened.components,
        weights=weights,
        parameters={part: sum(tensor.count for tensor in held.tensors.values()) for part, held in opened.sets.items()},
        largest={part: max((tensor.count for tensor in held.tensors.values()), default=0) for part, held in opened.sets.items()},
        layout=opened.layout,
        settings=opened.settings,
        unknown=opened.unknown,
        latents=opened.latents,
        pickled=frozenset(part for part, paths in weights.items() if paths[0].endswith(".bin")),
        files=files,
        digest=digest_of(files, {path for paths in weights.values() for path in paths} | averages),
        tensors=seen.tensors,
        unaudited=tuple(seen.unaudited),
        kinds=kinds_of(opened.sets, opened.layout),
        **own,
    )


def digest_of(files: tuple[File, ...], weights: set[str]) -> str:
    """SHA-256 over ``files`` and over which of them are the weights that are loaded: each list has its length before it, and each field
    of it, so that no name can stand for two."""
    rows = sorted(lengthened([os.fsencode(file.path), file.sha256.encode("ascii")]) for file in files)
    loaded = sorted(os.fsencode(path) for path in weights)
    return hashlib.sha256(lengthened([lengthened(rows), lengthened(loaded)])).hexdigest()


def kinds_of(sets: Mapping[str, WeightSet], layout: Layout) -> dict[str, dict[str, str]]:
    """Part → canonical name → the type that a tensor has in its file."""
    return {part: {layout.parts[part].canonical(name): info.dtype for name, info in held.tensors.items()} for part, held in sets.items()}
