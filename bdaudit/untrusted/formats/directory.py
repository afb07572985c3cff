"""A directory as diffusers writes it: an index that names parts, a folder for each, its config and its weights.

Finds out what a loader would open, and which settings reach it; every check is a layout's or a rule's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from bdaudit.errors import BdauditError, InconclusiveError, RefusedError
from bdaudit.untrusted import layouts, leftovers, rules, shapes, tokenizer_files
from bdaudit.untrusted.formats import weight_files as weights
from bdaudit.untrusted.layouts.layout import NEVER_LOADED, Layout, Part, Size
from bdaudit.untrusted.settings import check_settings, is_name, unknown_keys
from bdaudit.untrusted.tree import Reader, Tree, shown

INDEX = "model_index.json"
_IDLE = frozenset({"requires_safety_checker"})
"""Keys of an index that are no part."""


@dataclass
class Opened:
    """What a directory says of itself, as far as that is of use."""

    pipeline_class: str = ""
    components: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Component → (library, class), the null ones left out."""
    layout: Layout | None = None
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Path of a config → what of it a library is given."""
    unknown: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Path of a config → its keys that no layout knows."""
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Part → its config, with what its weights tell."""
    variants: dict[str, str] = field(default_factory=dict)
    sets: dict[str, weights.WeightSet] = field(default_factory=dict)
    latents: Size = (0, 0)

    def keep(self, config: dict[str, Any], part: Part, path: str) -> None:
        """What of a checked config a library is given, and what is left of it."""
        self.settings[path] = {key: value for key, value in config.items() if key in part.settings}
        self.unknown[path] = unknown_keys(config, part.settings, part.idle)
        for key, own in part.nested.items():
            inner = config.get(key) or {}
            self.settings[path][key] = {name: value for name, value in inner.items() if name in own}
            self.unknown[path] += tuple(f"{key}.{name}" for name in unknown_keys(inner, own, part.idle))


def open_directory(
    reader: Reader,
    found: rules.Findings,
    *,
    variant: str = "",
    allow_pickle: bool = False,
    size: Size | None = None,
    with_weights: bool = True,
    elsewhere: Mapping[str, weights.WeightSet] | None = None,
    trusted: Collection[str] = (),
) -> Opened:
    """Check every config, tokenizer and, ``with_weights``, weights file that a loader opens; what is wrong goes to ``found``.

    ``elsewhere`` are weights of parts that do not lie in the directory, which are held against its configs like its own; ``trusted`` are
    hashes of chat templates that a person lets through.
    """
    opened = Opened()
    with found.catching():
        _read_index(reader, opened, found)
    layout = opened.layout
    rules.check_code(reader.files, {*opened.components, *(layout.parts if layout else ())}, found)
    if layout is None or found.unsupported:
        return opened
    towers = {name for name, part in layout.models.items() if part.library == "transformers"}
    beside = {f"{name}/{file}" for name in layout.vocabularies for file in layout.parts[name].vocabulary.beside}
    rules.check_redirections(reader.files, towers, layout.vocabularies, found, beside)
    for name, part in layout.parts.items():
        if name not in layout.vocabularies:
            with found.catching():
                _read_config(reader, name, part, opened)
    if with_weights:
        own = {name: part for name, part in layout.models.items() if name not in (elsewhere or {})}
        with found.catching():
            opened.variants = weights.choose_variants(reader.files, own, asked=variant, allow_pickle=allow_pickle) if own else {}
            _read_weights(reader, layout, opened, found)
        opened.sets |= {name: held for name, held in (elsewhere or {}).items() if name in layout.models}
        for name in opened.sets:
            with found.catching():
                _check_weights(name, layout.parts[name], opened)
    for name, encoder in layout.vocabularies.items():
        rows = shapes.embeddings(opened.sets[encoder].tensors) if encoder in opened.sets else 0
        read = tokenizer_files.check(reader, name, layout.parts[name], rows, found, trusted)
        for path, config in read.items():
            opened.keep(config, tokenizer_files.with_tokens(layout.parts[name], config), path)
    told = opened.facts.keys() >= layout.parts.keys() - layout.vocabularies.keys()
    if with_weights and told and not found.damaged and not found.refused and not found.usage:
        with found.catching():
            opened.latents, notes = layout.as_run(opened.pipeline_class, opened.facts, size)
            found.notes += notes
    return opened


def _read_index(reader: Reader, opened: Opened, found: rules.Findings) -> None:
    index = reader.json(INDEX)
    if not index:
        raise BdauditError(f"{INDEX} is empty; fetch it again")
    with found.catching():
        rules.check_config({key: value for key, value in index.items() if key != "_class_name"}, INDEX)
    opened.layout = layouts.layout_of(index.get("_class_name"))
    known = {*NEVER_LOADED, *(opened.layout.parts if opened.layout else ())}
    opened.components = components(index, known, found)
    opened.pipeline_class = str(index.get("_class_name"))
    settings = opened.layout.settings if opened.layout else {}
    with found.catching():
        check_settings(index, settings, INDEX)
    opened.settings[INDEX] = {key: value for key, value in index.items() if key in settings}
    opened.unknown[INDEX] = unknown_keys(index, opened.components.keys() | known | settings.keys(), _IDLE)
    if not found.damaged:
        _check_parts(index.get("_class_name"), opened, known, found)


def led_away(tree: Tree) -> list[str]:
    """Why the tree is refused: what is no file, and links in a part of any family, or in the place of one. A line a kind."""
    return tree.refused({INDEX, *(part for layout in layouts.LAYOUTS.values() for part in layout.parts)})


def components(index: dict[str, Any], known: set[str], found: rules.Findings) -> dict[str, tuple[str, str]]:
    """Component → (library, class), the null ones left out; what may not be loaded goes to ``found``. ``known`` names are parts."""
    parts: dict[str, tuple[str, str]] = {}
    for name, value in index.items():
        if name.startswith("_") or not (_names_class(value) or (name in known and value is not None)):
            continue
        with found.catching():
            pair = _component(name, value)
            if pair is not None:
                parts[name] = pair
    return parts


def _names_class(value: Any) -> bool:
    """Whether a value under an unknown key may be a class to load; a list of two words in lower case is somebody's tags."""
    return isinstance(value, list) and len(value) == 2 and not (is_name(value[1]) and value[1].islower())


def _component(name: str, value: Any) -> tuple[str, str] | None:
    where = f"{INDEX}: {shown(name)}"
    if not isinstance(value, list) or len(value) != 2:
        raise BdauditError(f"{where} is {shown(value)}; expected [library, class]")
    library, class_name = value
    if library is None:
        return None
    if not is_name(name) or not is_name(class_name):
        raise RefusedError([f"{where} is {shown(value)}; component and class must be plain names"])
    if library == "stable_diffusion" and name == "safety_checker":
        return library, class_name
    if library not in ("diffusers", "transformers"):
        raise RefusedError([f"{where} comes from {shown(library)}; only classes of diffusers and transformers are loaded"])
    return library, class_name


def _check_parts(pipeline_class: Any, opened: Opened, known: set[str], found: rules.Findings) -> None:
    """Whether the index names the parts that its layout has, and no others."""
    if not is_name(pipeline_class):
        kind = found.damaged if pipeline_class is None else found.refused
        kind.append(f"{INDEX}: _class_name is {shown(pipeline_class)}; expected one plain name, as StableDiffusionPipeline")
    elif opened.layout is None:
        found.unsupported.append(f"{shown(layouts.called(pipeline_class))} is not supported; expected {layouts.expected()}")
    if opened.layout is None:
        return
    opened.layout = opened.layout.having(opened.components)
    for name, part in opened.layout.parts.items():
        got = opened.components.get(name)
        if got is None and name in opened.layout.lacking:
            found.unsupported.append(opened.layout.lacking[name])
        elif got is None or got[0] != part.library or got[1] not in part.classes:
            found.unsupported.append(f"{name} is {shown('.'.join(got) if got else 'missing')}; expected {part.library}.{part.classes[0]}")
    for extra in sorted(set(opened.components) - known):
        found.unsupported.append(f"the pipeline has a component {shown(extra)}, which is not supported")


def _read_config(reader: Reader, name: str, part: Part, opened: Opened) -> None:
    path = f"{name}/{part.config}"
    config = reader.json(path)
    rules.check_config(config, path)
    check_settings(config, part.settings, path)
    for key, own in part.nested.items():
        check_settings(config.get(key) or {}, own, f"{path}: {key}")
    opened.facts[name] = config
    opened.keep(config, part, path)


def _read_weights(reader: Reader, layout: Layout, opened: Opened, found: rules.Findings) -> None:
    for name, chosen in opened.variants.items():
        with found.catching():
            opened.sets[name] = weights.weights_of(name, layout.parts[name], chosen, reader)
    weights.check_memory(sum(reader.files[path] for held in opened.sets.values() for path in held.files))


def _check_weights(name: str, part: Part, opened: Opened) -> None:
    held = opened.sets[name]
    """Of a part whose config is not in order, which is told by then, the tensors' names alone."""
    leftovers.check_tensors(name, part, held.tensors)
    if name not in opened.facts:
        return
    config, described = opened.facts[name], {}
    try:
        described = part.described(held.tensors) if part.described else {}
        opened.facts[name] = config | described  # before a check: what is not supported there is looked at further by the family
        part.check(config, held.tensors)
    except InconclusiveError as error:
        raise InconclusiveError(f"{name}: {error}") from error
    except BdauditError as error:
        raise BdauditError(f"{name}: {error}") from error
    shapes.check_described(config, described, f"{name}/{part.config}")
