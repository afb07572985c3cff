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
from bdaudit.untrusted import leftovers, rules, shapes, stock, tokenizer_files
from bdaudit.untrusted import weight_files as weights
from bdaudit.untrusted.fingerprint import TensorDigests, lengthened
from bdaudit.untrusted.hub_cache import explain, lacking, snapshot_at
from bdaudit.untrusted.leftovers import Leftover
from bdaudit.untrusted.other_weights import DETERMINED, Audited, Unaudited, look
from bdaudit.untrusted.snapshot import Snapshot
from bdaudit.untrusted.tree import Reader, Tree, shown, walk

CONFIGS = {"text_encoder": "config.json", "unet": "config.json", "vae": "config.json", "scheduler": "scheduler_config.json"}

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
    """text_encoder, unet, vae → the variant that is loaded, empty for the full weights."""
    weights: dict[str, tuple[str, ...]]
    """text_encoder, unet, vae → the weights files that are loaded."""
    parameters: dict[str, int] = field(repr=False)
    """text_encoder, unet, vae → numbers in those files."""
    latents: stock.Size
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
        parts = {*CONFIGS, "tokenizer", *rules.OPTIONAL}
        left = [path for path in self.names if path not in self.loaded and leftovers.holds_weights(path)]
        folders = {path.split("/")[0] if path.split("/")[0] not in parts else path.rpartition("/")[0] for path in left if "/" in path}
        away = tuple(f"{folder}/" for folder in folders - parts)
        return tuple(f for f in self.files if f.path in self.loaded or not (f.path in left or f.path.startswith(away)))


def inspect(
    directory: Path, *, variant: str = "", strict: bool = False, allow_pickle: bool = False, size: tuple[int, int] | None = None
) -> Inspection:
    """Walk ``directory`` once, check whatever a loader would open, and hash what makes up the model.

    ``variant`` is the one of the weights that is loaded, ``full`` for those without one, where a part has it; ``strict`` refuses a pickle
    that nothing would open; ``allow_pickle`` lets a model without safetensors come from one ``.bin`` that holds tensors and nothing else;
    ``size`` is the pictures' width and height where it is not to be the pipeline's own.

    Raises:
        UsageError: no directory, or no ``model_index.json`` in it; no part has the variant.
        RefusedError: loading would run code, unpickle, or leave the directory (of a cache snapshot, its blobs); all reasons at once.
        BdauditError: damaged, too large, or a config that its weights contradict.
        InconclusiveError: safe, but no Stable Diffusion 1.x or 2.x pipeline.
    """
    if not directory.is_dir():
        raise UsageError(f"{shown(directory)} is not a directory; expected a model in the diffusers format")
    snapshot = snapshot_at(directory)
    root = directory.resolve()
    tree = walk(root)
    found = rules.Findings(refused=led_away(tree))
    reader = Reader(root, tree.files)
    if "model_index.json" not in tree.files and not found.refused:
        said = f"{shown(directory)} has no model_index.json; expected a model in the diffusers format"
        raise UsageError("; ".join([said, *lacking(snapshot, reader, tree)]))
    index, parts = _index(reader, found)
    rules.check_code(tree.files, {*parts, *rules.REQUIRED, "scheduler"}, found)
    models = _Models() if found.unsupported else _models(reader, found, parts, variant, allow_pickle, size)
    opened = {path for held in models.sets.values() for path in held.files}
    pickles = tuple(p for p in tree.files if PurePosixPath(p).suffix.lower() in rules.PICKLE_SUFFIXES and p not in opened)
    if strict:
        found.refused += [f"{shown(path)} is a pickle (--strict); remove it if nothing needs it" for path in pickles]
    explain(found, snapshot, reader, tree, parts)
    found.settle()
    loaded = tuple(sorted({*reader.checked, *opened}))
    seen = look(reader, tree, models.sets)
    files = tuple(File(path, tree.files[path], seen.digests.get(path) or reader.sha256(path)) for path in _kept(reader, parts, loaded))
    weights_files = {component: tuple(held.files) for component, held in models.sets.items()}
    return Inspection(
        path=directory,
        pipeline_class=index["_class_name"],
        components=parts,
        variants=models.variants,
        weights=weights_files,
        parameters=models.parameters,
        latents=models.latents,
        pickled=frozenset(c for c, paths in weights_files.items() if paths[0].endswith(".bin")),
        loaded=loaded,
        files=files,
        digest=_digest(files, opened),
        tensors=seen.tensors,
        unaudited=tuple(seen.unaudited),
        determined=tuple(map(shown, seen.notes.get(DETERMINED, ()))),
        unused_pickles=tuple(shown(path) for path in pickles),
        notes=tuple(_notes(tree, {f.path for f in files}, parts, models, seen, index["_class_name"]) + found.notes),
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


def _index(reader: Reader, found: rules.Findings) -> tuple[dict[str, Any], dict[str, tuple[str, str]]]:
    index: dict[str, Any] = {}
    with found.catching():
        index = reader.json("model_index.json")
        if not index:
            raise BdauditError("model_index.json is empty")
    if not index:
        return {}, {}
    with found.catching():
        rules.check_config({key: value for key, value in index.items() if key != "_class_name"}, "model_index.json")
    parts = rules.components(index, found)
    if not found.damaged:
        rules.check_pipeline(index, parts, found)
    return index, parts


@dataclass
class _Models:
    variants: dict[str, str] = field(default_factory=dict)
    sets: dict[str, weights.WeightSet] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)
    latents: stock.Size = (0, 0)


def _models(
    reader: Reader,
    found: rules.Findings,
    parts: dict[str, tuple[str, str]],
    variant: str,
    allow_pickle: bool,
    size: tuple[int, int] | None,
) -> _Models:
    """Check every config, tokenizer and weights file that a loader opens; which weights those are."""
    rules.check_redirections(reader.files, found)
    configs = _configs(reader, found)
    models, rows = _Models(), 0
    with found.catching():
        models.variants = weights.choose_variants(reader.files, asked=variant, allow_pickle=allow_pickle)
        for component, name in models.variants.items():
            with found.catching():
                models.sets[component] = held = weights.weights_of(component, name, reader)
                tensors = held.tensors
                models.parameters[component] = sum(tensor.count for tensor in tensors.values())
                leftovers.check_tensors(component, tensors)
                shapes.check_shapes(component, configs.get(component, {}), tensors)
                rows = shapes.embeddings(tensors) or rows
        weights.check_memory(sum(reader.files[path] for held in models.sets.values() for path in held.files))
    tokenizer_files.check(reader, rows, found)
    if not found.damaged and not found.refused and not found.usage:
        with found.catching():
            shapes.check_channels(configs["unet"], configs["vae"])
            shapes.check_scale(configs["vae"])
            models.latents = _as_stock(configs, parts, size, found)
    return models


def _as_stock(
    configs: dict[str, dict[str, Any]], parts: dict[str, tuple[str, str]], size: tuple[int, int] | None, found: rules.Findings
) -> stock.Size:
    """Whether the model is run as the stock pipeline runs it; what differs goes to the notes. The size of its latents."""
    stock.check_unet(configs["unet"])
    stock.check_text_encoder(configs["text_encoder"])
    notes = stock.check_scheduler(parts["scheduler"][1], configs["scheduler"])
    latents, drawn_at = stock.latent_size(configs["unet"], configs["vae"], size)
    found.notes += [note for note in (drawn_at, *notes) if note]
    return latents


def _configs(reader: Reader, found: rules.Findings) -> dict[str, dict[str, Any]]:
    configs: dict[str, dict[str, Any]] = {}
    for component, name in CONFIGS.items():
        with found.catching():
            configs[component] = reader.json(f"{component}/{name}")
            rules.check_config(configs[component], f"{component}/{name}")
    with found.catching():
        rules.check_text_encoder(configs.get("text_encoder", {}), "text_encoder/config.json")
    with found.catching():
        rules.check_scheduler(configs.get("scheduler", {}), "scheduler/scheduler_config.json")
    return configs


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
    """Why the tree is refused: what is no file, and links in a part that is loaded, or in the place of one."""
    parts = {*CONFIGS, "tokenizer", "model_index.json"}
    return [*tree.refused, *(link.said for path, link in sorted(tree.links.items()) if path.split("/")[0] in parts)]


def _notes(tree: Tree, kept: set[str], parts: dict[str, tuple[str, str]], models: _Models, seen: Audited, pipeline_class: str) -> list[str]:
    said = dict(seen.notes)
    named = {path for paths in said.values() for path in paths} | {other.path for other in seen.unaudited}
    for path in tree.files:
        if path not in kept and path not in named and shown(path) not in named:
            said.setdefault(leftovers.row_of(Leftover(path, loadable=False)).words, []).append(path)
    notes = [_note(words, paths) for words, paths in said.items()]
    notes.append(_note("hidden folders, not entered", tree.hidden))
    notes.append(_note("components listed and not loaded", [part for part in rules.OPTIONAL if part in parts]))
    notes.append(stock.pipeline_note(pipeline_class))
    if any(models.variants.values()):
        each = ", ".join(f"{component} {weights.spelled(variant)}" for component, variant in sorted(models.variants.items()))
        notes.append(f"weights of a variant were taken: {each}")
    opened = [path for held in models.sets.values() for path in held.files if path.endswith(".bin")]
    notes.append(_note("loaded from pickles, as tensors alone", opened))
    return [note for note in notes if note]


def _note(what: str, paths: tuple[str, ...] | list[str]) -> str:
    more = f" and {len(paths) - 5} more" if len(paths) > 5 else ""
    return f"{what}: {', '.join(shown(path) for path in paths[:5])}{more}" if paths else ""
