"""The inspection of a single file: its header sorted into parts, the settings that it lacks from a directory or as published, its digests.

What comes of it is an ``Inspection`` like a directory's: the same checks of the same settings, the same digest of tensors.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bdaudit.errors import BdauditError, InconclusiveError, RefusedError, UsageError
from bdaudit.untrusted import layouts, rules
from bdaudit.untrusted.fingerprint import Fingerprint, tensor_digests
from bdaudit.untrusted.formats import buffers, prediction, reference_settings
from bdaudit.untrusted.formats.directory import INDEX, Opened, led_away, open_directory
from bdaudit.untrusted.formats.piece_digests import Pieces, digest_file
from bdaudit.untrusted.formats.pieces import SCALE
from bdaudit.untrusted.formats.single_file import EMA, SUFFIXES, Held, OneFile, held, open_one
from bdaudit.untrusted.formats.weight_files import FULL, WeightSet, spelled
from bdaudit.untrusted.hub_snapshot import snapshot_of
from bdaudit.untrusted.inspection import File, Inspection, made_of
from bdaudit.untrusted.layouts.layout import Size
from bdaudit.untrusted.other_weights import DETERMINED, Audited, Unaudited, check_positions, prints_of
from bdaudit.untrusted.tree import Reader, shown, walk

_GGUF = ".gguf"
_PARTS_NAMED = 3


@dataclass(frozen=True)
class Opening:
    """A file's tensors, sorted, and the reader of its settings."""

    files: tuple[OneFile, ...]
    held: Held
    settings: Reader
    published: str
    """What the settings were published with; empty where they come from a directory."""


def open_file_model(path: Path, config: Path | None, parts: Mapping[str, Path], found: rules.Findings) -> Opening:
    """Read the headers of a model's files, and find its settings.

    Raises:
        RefusedError: a pickle.
        InconclusiveError: of no family that is read as a single file, or of a size whose settings nobody published.
        UsageError: the directory is of another family, or none; a part is named that there is none of.
        BdauditError: damaged.
    """
    directory = None if config is None else _settings_of(config, found)
    files = (_opened(path), *(_opened(each, part) for part, each in parts.items()))
    layers = {} if directory is None else _layers(directory)
    sorted_in = held(files, layers or reference_settings.LAYERS)
    wrong = [part for part in parts if part not in sorted_in.layout.models]
    if wrong:
        raise UsageError(f"--part {shown(wrong[0])}: the model has the parts {', '.join(sorted_in.layout.models)}; name one of these")
    if directory is not None:
        _check_one_family(directory, sorted_in, path)
        return Opening(files, sorted_in, directory, "")
    _check_published(sorted_in, path)
    _check_nothing_lacks(sorted_in, path)
    reference = reference_settings.fitting(sorted_in, shown(path.name))
    scheduler = prediction.settings(_of_denoiser(files, sorted_in), sorted_in, reference)
    return Opening(files, sorted_in, reference_settings.bundled(reference, scheduler), reference.called)


def _of_denoiser(files: Sequence[OneFile], sorted_in: Held) -> OneFile:
    """The file that the denoiser is taken from: its marks count."""
    held_in = next(iter(sorted_in.parts[sorted_in.layout.heeding[0]].values())).file
    return next(file for file in files if file.key == held_in)


def inspect_file(
    path: Path, *, variant: str, allow_pickle: bool, size: Size | None, config: Path | None, parts: Mapping[str, Path]
) -> Inspection:
    """Check and hash a single file, with what it lacks; the arguments are those of ``inspect``.

    Raises:
        RefusedError: a pickle, whatever ``allow_pickle`` says of directories; what ``inspect`` refuses of ``config``.
        UsageError, InconclusiveError, BdauditError: as ``open_file_model`` and ``inspect``.
    """
    found = rules.Findings()
    opening = open_file_model(path, config, parts, found)
    chosen, variants = _chosen(opening.held, variant)
    sets = {part: _set_of(pieces) for part, pieces in chosen.items()}
    opened = open_directory(
        opening.settings,
        found,
        variant="" if variant in (EMA, FULL) else variant,
        allow_pickle=allow_pickle,
        size=size,
        elsewhere=sets,
    )
    found.settle()
    assert opened.layout is not None, "what no layout covers has been raised"
    _check_all_heard(chosen, opened.layout.models, path)
    buffers.check(opening.files[0], opening.settings)
    if not opening.published:
        prediction.check(_of_denoiser(opening.files, opening.held), opening.held, opening.settings)
    named = {"config": config, "part_files": dict(parts), "notes": tuple(found.notes)}
    return _inspection(path, opening, opened, chosen, {**opened.variants, **variants}, named)


def _check_all_heard(chosen: Pieces, parts: Collection[str], path: Path) -> None:
    """Raises ``InconclusiveError`` for a part that the pipeline of the settings has not: another loader would take it."""
    idle = [part for part in chosen if part not in parts]
    if idle:
        said = f"{shown(path.name)} holds a {idle[0]}, which the pipeline of --config has not"
        raise InconclusiveError(f"{said}; name a directory whose pipeline has one")


def _inspection(
    path: Path, opening: Opening, opened: Opened, chosen: Pieces, variants: dict[str, str], named: Mapping[str, Any]
) -> Inspection:
    seen = _digested(opening, opened, chosen)
    names = {name for held in opened.sets.values() for name in held.files}
    own = {file.key: (file.reader.root, file.path) for file in opening.files}
    reader = opening.settings
    made = dict(reader.contents) if isinstance(reader, reference_settings.Bundled) else {}
    settings = {} if made else {name: (reader.root, name) for name in {*reader.checked, *names} if name not in own}
    files = [File(file.key, file.reader.files[file.path], seen.digests[file.key]) for file in opening.files]
    files += [File(name, reader.files[name], seen.digests.get(name) or reader.sha256(name)) for name in sorted(settings)]
    return made_of(
        opened,
        seen,
        files,
        path=path,
        variants=variants,
        loaded=tuple(sorted({*reader.checked, *names})),
        determined=tuple(seen.notes.get(DETERMINED, ())),
        unused_pickles=(),
        notes=(*_notes(opening, variants, seen), *named["notes"]),
        names=frozenset({*own, *settings}),
        snapshot=snapshot_of(opening.files[0].reader.root),
        pieces=chosen,
        places={**own, **settings},
        made=made,
        left_out=_left_out(opening.held, chosen),
        renamed=_renamed(opening.held, chosen),
        config=named["config"],
        part_files=named["part_files"],
    )


def _left_out(sorted_in: Held, chosen: Pieces) -> dict[str, frozenset[str]]:
    """File → tensors of the weights that were not chosen, and of no part."""
    found = {key: set(names) for key, names in sorted_in.leftovers.items()}
    for each in (sorted_in.averages, sorted_in.parts):
        for part, pieces in each.items():
            for piece in pieces.values() if chosen[part] is not pieces else ():
                stem = piece.source.name.rpartition(".")[0]
                found.setdefault(piece.file, set()).update([piece.source.name, *([f"{stem}.{SCALE}"] if piece.scale else [])])
    return {key: frozenset(names) for key, names in found.items()}


def _renamed(sorted_in: Held, chosen: Pieces) -> dict[str, dict[str, str]]:
    """File → tensor of a moving average that was chosen → the weight that it is the average of."""
    found: dict[str, dict[str, str]] = {}
    for part in sorted_in.averages:
        for name, piece in chosen[part].items() if chosen[part] is sorted_in.averages[part] else ():
            found.setdefault(piece.file, {})[piece.source.name] = sorted_in.parts[part][name].source.name
    return found


def verify_files(inspection: Inspection) -> None:
    """Hash again what was inspected of a single file and of what it lacked.

    Raises:
        BdauditError: one of them changed.
        RefusedError: one is no regular file any more.
    """
    for file in inspection.files:
        reader, path = inspection.reader_of(file.path)
        if reader.sha256(path) != file.sha256:
            raise BdauditError(f"{shown(file.path)} changed while the model was being loaded")


def variants_of_file(path: Path) -> tuple[str, ...]:
    """What ``--variant`` can choose in a single file.

    Raises:
        BdauditError: as ``open_one``.
    """
    names = _opened(path).header.tensors
    return (FULL, EMA) if any(name.startswith(f"model_{EMA}.") for name in names) else (FULL,)


def _opened(path: Path, part: str = "") -> OneFile:
    """A file that was named, through a link too: who names a file means what lies there."""
    key, suffix = f"{part}/{path.name}" if part else path.name, path.suffix.lower()
    if suffix in rules.PICKLE_SUFFIXES:
        said = "a checkpoint as a pickle is never opened, whatever --allow-pickle says of directories"
        raise RefusedError([f"{shown(key)}: {said}; get it as .safetensors"])
    if suffix == _GGUF:
        raise InconclusiveError(f"{shown(key)} is GGUF, quantised weights, which are not supported; get them as .safetensors in 16 bits")
    if suffix not in SUFFIXES:
        raise UsageError(f"{shown(key)} is no checkpoint by its name; expected a directory, or a file that ends in .safetensors")
    reader, name = _reader(path)
    return open_one(key, reader, name, part)


def _reader(path: Path) -> tuple[Reader, str]:
    folder = path.parent.resolve()
    snapshot = snapshot_of(folder)
    if snapshot is None or not path.is_symlink():
        real = path.resolve()
        if not real.exists():
            raise UsageError(f"{shown(path)} does not exist")
        return Reader(real.parent, {real.name: real.stat().st_size}), real.name
    size, where = snapshot.look(path.name, str(path.readlink()))
    if where:
        raise RefusedError([f"{shown(path)} is a link that leads {where}; get the file again: `{snapshot.download}`"])
    return Reader(folder, {path.name: size}), path.name


def _settings_of(config: Path, found: rules.Findings) -> Reader:
    if not config.is_dir():
        raise UsageError(f"--config {shown(config)} is not a directory; expected one in diffusers' layout, with {INDEX} in it")
    tree = walk(config.resolve())
    found.refused += led_away(tree)
    if INDEX not in tree.files:
        raise UsageError(f"--config {shown(config)} has no {INDEX}; expected a model in diffusers' layout")
    return Reader(config.resolve(), tree.files)


def _check_one_family(directory: Reader, sorted_in: Held, path: Path) -> None:
    """Raises ``UsageError`` where the settings are another family's; what else is wrong with them is told later."""
    layout = layouts.layout_of(Reader(directory.root, directory.files).json(INDEX).get("_class_name"))
    if layout is not None and layout is not sorted_in.layout:
        said = f"--config is of {layout.called}, and {shown(path.name)} is of {sorted_in.layout.called}"
        raise UsageError(f"{said}; name a directory of the same family")


def _layers(reader: Reader) -> dict[str, int]:
    """Folder → the layers that its config asks for; whatever else it says is checked later."""
    aside, found = Reader(reader.root, reader.files), {}
    for path in reader.files:
        folder, _, name = path.rpartition("/")
        if name == "config.json" and "/" not in folder:
            layers: Any = aside.json(path).get("num_hidden_layers")
            found[folder] = layers if type(layers) is int else 0
    return found


def _check_published(sorted_in: Held, path: Path) -> None:
    """Raises ``UsageError`` for a family of which no settings come with bdaudit: its tokenizers lie in no single file either."""
    if sorted_in.layout.name not in reference_settings.REFERENCES:
        said = f"{shown(path.name)} is of {sorted_in.layout.called}, and holds neither its settings nor its tokenizers"
        raise UsageError(f"{said}; say --config DIR, a model of that family in diffusers' layout, which the other parts are taken from too")


def _check_nothing_lacks(sorted_in: Held, path: Path) -> None:
    """Raises ``UsageError`` where neither the file nor one of its parts' has a part."""
    gone = [part for part in sorted_in.layout.models if part not in sorted_in.parts]
    if gone:
        said = f"{shown(path.name)} holds no {' and no '.join(gone)}"
        raise UsageError(f"{said}; say --part {gone[0]}=FILE, or --config DIR, a model in diffusers' layout that has what it lacks")


def _chosen(sorted_in: Held, variant: str) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """The pieces of the weights that ``variant`` names, and what they are called, by part.

    Raises:
        UsageError: there is no moving average.
    """
    if variant == EMA and not sorted_in.averages:
        raise UsageError(f"--variant {EMA}: the file holds no whole moving average of its denoiser; leave --variant out")
    taken = sorted_in.averages if variant == EMA else {}
    return {**sorted_in.parts, **taken}, {part: EMA if part in taken else "" for part in sorted_in.parts}


def _set_of(pieces: Mapping[str, Any]) -> WeightSet:
    """As ``open_directory`` takes weights, in the part's own names."""
    files: dict[str, dict[str, Any]] = {}
    for name, piece in pieces.items():
        files.setdefault(piece.file, {})[name] = piece.info
    return WeightSet("", files)


# --- what the tensors are ---------------------------------------------------------------------


def _digested(opening: Opening, opened: Opened, chosen: Pieces) -> Audited:
    """Every file hashed, every tensor of a part too; what nobody looks at is named."""
    found, everything = Audited(), {**opening.held.parts}
    others = {part: pieces for part, pieces in opening.held.averages.items() if chosen[part] is not pieces}
    others |= {part: everything[part] for part in opening.held.averages if chosen[part] is opening.held.averages[part]}
    kinds = {"F16", *(piece.info.dtype for pieces in others.values() for piece in pieces.values())}
    prints: dict[tuple[str, str], Fingerprint] = {}
    beside: dict[tuple[str, str], Fingerprint] = {}
    for file in opening.files:
        found.digests[file.key], of = digest_file(file, [chosen, others], kinds)
        prints |= of[0]
        beside |= of[1]
    for part, weights in opened.sets.items():
        if part not in chosen and not weights.path.endswith(".bin"):
            prints |= {(part, name): one for name, one in prints_of(weights, opening.settings, kinds, found).items()}
    models = opened.layout.models if opened.layout else {}
    for part in models:
        check_positions(part, {name: one for (of_part, name), one in prints.items() if of_part == part})
    if {part for part, _ in prints} == set(models):
        named = {(part, _canonical(models[part], name)): one for (part, name), one in prints.items() if not models[part].is_constant(name)}
        found.tensors = tensor_digests(named)
    _name_others(opening, others, chosen, prints, beside, found)
    return found


def _canonical(part: Any, name: str) -> str:
    """A piece's name is canonical but for the scale of one."""
    return str(part.canonical(name))


def _name_others(
    opening: Opening,
    others: Pieces,
    chosen: Pieces,
    prints: Mapping[tuple[str, str], Fingerprint],
    beside: Mapping[tuple[str, str], Fingerprint],
    found: Audited,
) -> None:
    """The set that was not chosen, unless it is the audited one again; and tensors of no part."""
    for part, pieces in others.items():
        key = next(iter(pieces.values())).file
        averaged = chosen[part] is not opening.held.averages[part]
        path = f"{shown(key)}: {'the moving average of' if averaged else 'but for its moving average,'} the {part}"
        own = {name: one for (of, name), one in beside.items() if of == part}
        unlike = [name for name, one in own.items() if not _same(prints.get((part, name)), one)]
        if unlike:
            reason = f"{shown(unlike[0])} is not the audited tensor, nor its cast"
            found.unaudited.append(Unaudited(path, reason, EMA if averaged else FULL))
        else:
            found.notes.setdefault(DETERMINED, []).append(path)
    for key, names in opening.held.leftovers.items():
        said = ", ".join(map(shown, names[:_PARTS_NAMED])) + (f" and {len(names) - _PARTS_NAMED} more" if names[_PARTS_NAMED:] else "")
        found.unaudited.append(Unaudited(f"{shown(key)}: {said}", "no part that is audited has tensors of that name"))


def _same(audited: Fingerprint | None, one: Fingerprint) -> bool:
    """Whether a tensor is the audited one's cast; one that is scaled beside one that is not is none."""
    return audited is not None and audited.at(one.info.dtype) == one.exact


def _notes(opening: Opening, variants: dict[str, str], seen: Audited) -> list[str]:
    notes = list(opening.held.aside)
    if opening.published:
        notes.append(f"the file holds no settings: those that {opening.published} was published with were taken")
    if any(variants.values()):
        notes.append(f"weights of a variant were taken: {', '.join(f'{part} {spelled(v)}' for part, v in sorted(variants.items()))}")
    return notes + [f"{words}: {', '.join(paths)}" for words, paths in seen.notes.items()]
