"""Decide what a loader would open, and allow only what is safe: before torch is imported, and without opening a pickle.

Refuses to know tensors. Code, custom classes, links out of the directory and weights that need unpickling end in exit 5.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from bdaudit.errors import BdauditError, UsageError
from bdaudit.pipeline import rules, shapes, stock, tokenizer_files, weights
from bdaudit.pipeline.reading import Reader, Tree, shown, walk

CONFIGS = {"text_encoder": "config.json", "unet": "config.json", "vae": "config.json", "scheduler": "scheduler_config.json"}

_LARGE, _OTHERS = 64 << 20, 1 << 30
"""Bytes of one, and of all, of the files that are hashed though no loader opens them."""
_OTHER_WEIGHTS = (".msgpack", ".h5", ".onnx", ".onnx_data", ".pb", ".gguf", ".tflite", ".npz", ".ot")


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
    variant: str
    """``fp16`` where the three models have that variant alone, else empty: the full weights are used wherever they are."""
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
    """SHA-256 over the sorted lines ``sha256  path`` of ``files``."""
    unused_pickles: tuple[str, ...]
    """Never opened."""
    pickled: frozenset[str] = frozenset()
    """Models whose weights are a pickle of tensors alone, which ``--allow-pickle`` asked to load."""
    notes: tuple[str, ...]
    """What was seen and left alone."""
    names: frozenset[str] = field(repr=False)
    """Every file seen."""

    @property
    def component_classes(self) -> dict[str, str]:
        """Component → class name."""
        return {name: class_name for name, (_, class_name) in self.components.items()}


def inspect(directory: Path, *, strict: bool = False, allow_pickle: bool = False, size: tuple[int, int] | None = None) -> Inspection:
    """Walk ``directory`` once, check whatever a loader would open, and hash what makes up the model.

    ``strict`` refuses a pickle that nothing would open; ``allow_pickle`` lets a model without safetensors come from one ``.bin`` that holds
    tensors and nothing else; ``size`` is the pictures' width and height where it is not to be the pipeline's own.

    Raises:
        UsageError: no directory, or no ``model_index.json`` in it.
        RefusedError: loading would run code, unpickle, or leave the directory; all reasons at once.
        BdauditError: damaged, too large, or a config that its weights contradict.
        InconclusiveError: safe, but no Stable Diffusion 1.x or 2.x pipeline.
    """
    if not directory.is_dir():
        raise UsageError(f"{shown(directory)} is not a directory; expected a model in the diffusers format")
    root = directory.resolve()
    tree = walk(root)
    found = rules.Findings(refused=list(tree.refused))
    if "model_index.json" not in tree.files and not found.refused:
        raise UsageError(f"{shown(directory)} has no model_index.json; expected a model in the diffusers format")
    reader = Reader(root, tree.files)
    index, parts = _index(reader, found)
    rules.check_code(tree.files, {*parts, *rules.REQUIRED, "scheduler"}, found)
    models = _Models() if found.unsupported else _models(reader, found, parts, allow_pickle, size)
    opened = {path for paths in models.weights.values() for path in paths}
    pickles = tuple(p for p in tree.files if PurePosixPath(p).suffix.lower() in rules.PICKLE_SUFFIXES and p not in opened)
    if strict:
        found.refused += [f"{shown(path)} is a pickle (--strict); remove it if nothing needs it" for path in pickles]
    found.settle()
    loaded = tuple(sorted({*reader.checked, *opened}))
    files = tuple(File(path, tree.files[path], reader.sha256(path)) for path in _kept(reader, parts, loaded))
    return Inspection(
        path=directory,
        pipeline_class=index["_class_name"],
        components=parts,
        variant=models.variant,
        weights=models.weights,
        parameters=models.parameters,
        latents=models.latents,
        pickled=frozenset(c for c, paths in models.weights.items() if paths[0].endswith(".bin")),
        loaded=loaded,
        files=files,
        digest=_digest(files),
        unused_pickles=tuple(shown(path) for path in pickles),
        notes=tuple(_notes(tree, {f.path for f in files}, pickles, parts, models, index["_class_name"]) + found.notes),
        names=frozenset(tree.files),
    )


def verify_unchanged(inspection: Inspection) -> None:
    """Hash again what loading opened, to be called when it is loaded: the file that was checked is the file that was loaded.

    Raises:
        BdauditError: a file changed, came or went since the inspection.
        RefusedError: one is no regular file any more, or a link out of the directory.
    """
    root = inspection.path.resolve()
    tree = walk(root)
    found = rules.Findings(refused=list(tree.refused))
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
    variant: str = ""
    weights: dict[str, tuple[str, ...]] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)
    latents: stock.Size = (0, 0)


def _models(
    reader: Reader, found: rules.Findings, parts: dict[str, tuple[str, str]], allow_pickle: bool, size: tuple[int, int] | None
) -> _Models:
    """Check every config, tokenizer and weights file that a loader opens; which weights those are."""
    rules.check_redirections(reader.files, found)
    configs = _configs(reader, found)
    models, rows = _Models(), 0
    with found.catching():
        models.variant = weights.choose_variant(reader.files, allow_pickle=allow_pickle)
        for component in weights.STEMS:
            with found.catching():
                models.weights[component], tensors = weights.weights_of(component, models.variant, reader)
                models.parameters[component] = sum(math.prod(tensor.shape) for tensor in tensors.values())
                shapes.check_shapes(component, configs.get(component, {}), tensors)
                rows = shapes.embeddings(tensors) or rows
        weights.check_memory(sum(reader.files[path] for paths in models.weights.values() for path in paths))
    tokenizer_files.check(reader, rows, found)
    if not found.damaged and not found.refused:
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
        if suffix in rules.PICKLE_SUFFIXES or suffix in _OTHER_WEIGHTS or rules.is_code(path):
            return False
        weighty = suffix == ".safetensors"
        if weighty and not (path.split("/")[0] in parts and "/" in path):
            return False
        if (not weighty and size > _LARGE) or size > room[weighty] or not reader.is_whole(path):
            return False
        room[weighty] -= size
        return True

    return [path for path in reader.files if path in loaded or belongs(path)]


def _digest(files: tuple[File, ...]) -> str:
    lines = "".join(f"{line}\n" for line in sorted(f"{file.sha256}  {file.path}" for file in files))
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


def _notes(
    tree: Tree, kept: set[str], pickles: tuple[str, ...], parts: dict[str, tuple[str, str]], models: _Models, pipeline_class: str
) -> list[str]:
    others = [path for path in tree.files if path not in kept and path not in pickles]
    optional = [part for part in rules.OPTIONAL if part in parts]
    notes = [
        _note("pickles that nothing opens", pickles),
        _note("files left alone, in no digest", others),
        _note("hidden folders, not entered", tree.hidden),
        _note("components listed and not loaded", optional),
    ]
    notes.append(stock.pipeline_note(pipeline_class))
    if models.variant:
        notes.append(f"the full weights are not there; the {models.variant} variant was taken")
    opened = [path for paths in models.weights.values() for path in paths if path.endswith(".bin")]
    notes.append(_note("loaded from pickles, as tensors alone", opened))
    return [note for note in notes if note]


def _note(what: str, paths: tuple[str, ...] | list[str]) -> str:
    more = f" and {len(paths) - 5} more" if len(paths) > 5 else ""
    return f"{what}: {', '.join(shown(path) for path in paths[:5])}{more}" if paths else ""
