"""Decide what a loader would open, and allow only what is safe: before torch is imported, and without opening a pickle.

Refuses to know tensors. Code, custom classes, links out of the directory and weights that need unpickling end in exit 5.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from bdaudit.errors import BdauditError, UsageError
from bdaudit.pipeline import rules, weights
from bdaudit.pipeline.reading import Reader, Tree, shown, walk

TOKENIZER_LIMITS = (8 << 20, 600_000)
"""Bytes, and commas plus brackets, of a tokenizer's file; CLIP's ``tokenizer.json`` has 3.6 MB."""
TOKENIZER_FILES = (
    *("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json", "chat_template.jinja"),
)
CONFIGS = {"text_encoder": "config.json", "unet": "config.json", "vae": "config.json", "scheduler": "scheduler_config.json"}

_LARGE = 64 << 20
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
    """text_encoder, unet, vae → the safetensors files that are loaded."""
    loaded: tuple[str, ...]
    """Every file that loading opens."""
    files: tuple[File, ...]
    """What makes up the model: small files, and the components' safetensors; never pickles, code or other frameworks' weights."""
    digest: str
    """SHA-256 over the sorted lines ``sha256  path`` of ``files``."""
    unused_pickles: tuple[str, ...]
    """Never opened."""
    notes: tuple[str, ...]
    """What was seen and left alone."""
    names: frozenset[str] = field(repr=False)
    """Every file seen."""

    @property
    def component_classes(self) -> dict[str, str]:
        """Component → class name."""
        return {name: class_name for name, (_, class_name) in self.components.items()}


def inspect(directory: Path, *, strict: bool = False) -> Inspection:
    """Walk ``directory`` once, check whatever a loader would open, and hash what makes up the model.

    ``strict`` refuses a pickle even where nothing would open it.

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
    pickles = tuple(path for path in tree.files if PurePosixPath(path).suffix.lower() in rules.PICKLE_SUFFIXES)
    if strict:
        found.refused += [f"{shown(path)} is a pickle (--strict); remove it if nothing needs it" for path in pickles]
    variant, chosen = ("", {}) if found.unsupported else _models(reader, found)
    found.settle()
    loaded = tuple(sorted(reader.checked))
    files = tuple(File(path, tree.files[path], reader.sha256(path)) for path in _kept(tree, parts, loaded))
    return Inspection(
        path=directory,
        pipeline_class=index["_class_name"],
        components=parts,
        variant=variant,
        weights=chosen,
        loaded=loaded,
        files=files,
        digest=_digest(files),
        unused_pickles=tuple(shown(path) for path in pickles),
        notes=tuple(_notes(tree, {f.path for f in files}, pickles, parts, variant) + found.notes),
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


def _models(reader: Reader, found: rules.Findings) -> tuple[str, dict[str, tuple[str, ...]]]:
    """Check every config, tokenizer and weights file that a loader opens; variant, and component → weights files."""
    rules.check_redirections(reader.files, found)
    configs: dict[str, dict[str, Any]] = {}
    for component, name in CONFIGS.items():
        with found.catching():
            configs[component] = reader.json(f"{component}/{name}")
            rules.check_config(configs[component], f"{component}/{name}")
    with found.catching():
        rules.check_scheduler(configs.get("scheduler", {}), "scheduler/scheduler_config.json")
    chosen: dict[str, tuple[str, ...]] = {}
    variant, rows = "", 0
    with found.catching():
        variant = weights.choose_variant(reader.files)
        for component in weights.STEMS:
            with found.catching():
                chosen[component], tensors = weights.weights_of(component, variant, reader)
                weights.check_shapes(component, configs.get(component, {}), tensors)
                rows = weights.embeddings(tensors) or rows
        weights.check_memory(sum(reader.files[path] for paths in chosen.values() for path in paths))
    _tokenizer(reader, rows, found)
    if not found.damaged and not found.refused:
        with found.catching():
            weights.check_channels(configs["unet"], configs["vae"])
    return variant, chosen


def _tokenizer(reader: Reader, rows: int, found: rules.Findings) -> None:
    held = {name: f"tokenizer/{name}" for name in TOKENIZER_FILES if f"tokenizer/{name}" in reader.files}
    templates = [path for path in reader.files if path.startswith("tokenizer/additional_chat_templates/")]
    if "tokenizer.json" not in held and not {"vocab.json", "merges.txt"} <= set(held):
        found.damaged.append("tokenizer: expected vocab.json and merges.txt, or tokenizer.json")
    vocabularies = []
    for name, path in held.items():
        with found.catching():
            vocabulary = _tokenizer_file(reader, name, path, rows)
            vocabularies += [vocabulary] if vocabulary else []
    for path in templates:
        with found.catching():
            reader.content(path, TOKENIZER_LIMITS[0])
    if len(vocabularies) == 2 and vocabularies[0] != vocabularies[1]:
        found.notes.append("tokenizer: vocab.json and tokenizer.json differ; which one is read depends on the version of transformers")


def _tokenizer_file(reader: Reader, name: str, path: str, rows: int) -> dict[str, int]:
    """Check one file; its vocabulary, empty where it has none."""
    if not name.endswith(".json"):
        try:
            reader.content(path, TOKENIZER_LIMITS[0]).decode("utf-8")
        except UnicodeDecodeError as error:
            raise BdauditError(f"{path} is not UTF-8 (byte {error.start})") from error
        return {}
    content = reader.json(path, TOKENIZER_LIMITS)
    if name in ("tokenizer_config.json", "special_tokens_map.json"):
        rules.check_config(content, path)
    elif name == "vocab.json":
        return rules.check_vocabulary(content, path, rows)
    elif name == "added_tokens.json" and content:
        rules.check_vocabulary(content, path, rows)
    elif name == "tokenizer.json":
        model = content.get("model")
        if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
            raise BdauditError(f"{path}: expected a BPE model, as CLIP's")
        return rules.check_vocabulary(model.get("vocab"), path, rows)
    return {}


def _kept(tree: Tree, parts: dict[str, tuple[str, str]], loaded: tuple[str, ...]) -> list[str]:
    """The files that make up the model; what is large and belongs to no component is left alone, unread."""

    def belongs(path: str) -> bool:
        suffix = PurePosixPath(path).suffix.lower()
        if suffix in rules.PICKLE_SUFFIXES or suffix in _OTHER_WEIGHTS or rules.is_code(path):
            return False
        if suffix == ".safetensors":
            return path.split("/")[0] in parts and "/" in path
        return tree.files[path] <= _LARGE

    return [path for path in tree.files if path in loaded or belongs(path)]


def _digest(files: tuple[File, ...]) -> str:
    lines = "".join(f"{line}\n" for line in sorted(f"{file.sha256}  {file.path}" for file in files))
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


def _notes(tree: Tree, kept: set[str], pickles: tuple[str, ...], parts: dict[str, tuple[str, str]], variant: str) -> list[str]:
    others = [path for path in tree.files if path not in kept and path not in pickles]
    optional = [part for part in rules.OPTIONAL if part in parts]
    notes = [
        _note("pickles that nothing opens", pickles),
        _note("files left alone, in no digest", others),
        _note("hidden folders, not entered", tree.hidden),
        _note("components listed and not loaded", optional),
    ]
    if variant:
        notes.append(f"the full weights are not there; the {variant} variant was taken")
    return [note for note in notes if note]


def _note(what: str, paths: tuple[str, ...] | list[str]) -> str:
    more = f" and {len(paths) - 5} more" if len(paths) > 5 else ""
    return f"{what}: {', '.join(shown(path) for path in paths[:5])}{more}" if paths else ""
