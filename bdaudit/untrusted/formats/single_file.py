"""Checkpoints in one file, in CompVis' and Stability's layout, and files of one part: which tensor is which part's, by names alone.

Every tensor is some part's, a known idle one, or a leftover that is named. Nothing is guessed from sizes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from bdaudit.errors import BdauditError, InconclusiveError
from bdaudit.untrusted import layouts, leftovers
from bdaudit.untrusted.formats import addition, spellings
from bdaudit.untrusted.formats.pieces import SCALE, Piece, check_numbers, piece
from bdaudit.untrusted.formats.spellings import SPELLINGS, Spelling, ema_names, is_idle, unsupported
from bdaudit.untrusted.layouts.layout import Layout, Part
from bdaudit.untrusted.safetensors_header import Header, whole_header
from bdaudit.untrusted.tree import Reader, shown

SUFFIXES = (".safetensors", ".sft")
EMA = "ema"
"""What ``--variant`` calls the UNet's moving average."""
_PROJECTION, _PROJECTED = "text_projection.weight", ("text_encoder", "text_encoder_2")
_SCALED = "scaled_fp8"
_SCALES = re.compile(rf"(.*\.)?({SCALE}|scale_input|input_scale|{_SCALED})", re.DOTALL)
"""Of scaled 8-bit weights: the scale that is applied, and those of activations, which change speed and not the model."""


@dataclass(frozen=True)
class OneFile:
    """A file that was named, and its header."""

    key: str
    """What reports call it: its name, of a part's file with the part's before it."""
    reader: Reader
    path: str
    """Within ``reader``."""
    header: Header
    part: str = ""
    """The one part that it was named for; empty for the model's own file."""


@dataclass
class Held:
    """What the files hold."""

    layout: Layout
    parts: dict[str, dict[str, Piece]] = field(default_factory=dict)
    """Part → canonical name → where it lies."""
    averages: dict[str, dict[str, Piece]] = field(default_factory=dict)
    """Part → the same of its moving average, where that is whole."""
    claimed: dict[str, list[str]] = field(default_factory=dict)
    """File → beginnings of names that are a part's."""
    leftovers: dict[str, list[str]] = field(default_factory=dict)
    """File → tensors of no known part."""
    aside: list[str] = field(default_factory=list)
    """Notes on what lies there and is known to be of no use."""


def open_one(key: str, reader: Reader, path: str, part: str = "") -> OneFile:
    """Read a file's header.

    Raises:
        RefusedError: a pickle.
        BdauditError: as ``header_of``.
    """
    header = whole_header(reader, path, key)
    _check_kinds(header, key)
    return OneFile(key, reader, path, header, part)


def _check_kinds(header: Header, key: str) -> None:
    """Raises ``InconclusiveError`` for weights that mean nothing without a library of their own."""
    for name in header.tensors:
        said = next((said for pattern, said in leftovers.TENSORS.items() if re.fullmatch(pattern, name)), "")
        if said and not _SCALES.fullmatch(name):
            raise InconclusiveError(f"{shown(key)}: {shown(name)} says that these are {said}")


def expected() -> str:
    """The families that are read so, in words."""
    return " or ".join(layouts.LAYOUTS[family].called for family in SPELLINGS)


def family_of(names: Collection[str], key: str) -> str:
    """The family of a model's own file.

    Raises:
        InconclusiveError: of none that is read, or it holds no denoiser.
    """
    said = unsupported(names)
    if said:
        raise InconclusiveError(f"{shown(key)} is {said}; as a single file, expected {expected()}")
    family = spellings.family_of(names)
    if family:
        return family
    said = f"{shown(key)} holds no denoiser that is known by its names, the first tensor is {shown(next(iter(names), 'none'))}"
    raise InconclusiveError(f"{said}; as a single file, expected {expected()}")


def held(files: Sequence[OneFile], layers: Mapping[str, int]) -> Held:
    """Sort the tensors of the model's own file, the first, and of its parts' files; ``layers`` is how many a text tower is to have.

    Raises:
        InconclusiveError: a family that is not read; an adapter or an embedding; a part that lies there twice; numbers of no known kind.
        BdauditError: a tensor of a part that is none of its own, or of an odd shape.
    """
    own = files[0]
    known = spellings.family_of(own.header.tensors) or unsupported(own.header.tensors)
    alone = "" if known else addition.described(own.header, own.key)
    if alone:
        raise InconclusiveError(alone)
    family = family_of(own.header.tensors, own.key)
    found = Held(layouts.LAYOUTS[family])
    for file in sorted(files, key=lambda file: not file.part):
        for name, part in found.layout.models.items():
            if file.part in ("", name):
                _hold(found, file, name, part, layers.get(name, 0))
        _leave(found, file)
    return found


def _hold(found: Held, file: OneFile, name: str, part: Part, layers: int) -> None:
    """Take the part ``name`` out of a file that has it."""
    spelling = _spelling(found, file, name)
    if spelling is None:
        return
    found.claimed.setdefault(file.key, []).append(spelling.prefix)
    if name in found.parts:
        found.aside.append(f"the {name} in {shown(file.key)}, in place of which --part names a file")
        return
    tensors = {each: info for each, info in file.header.tensors.items() if each.startswith(spelling.prefix)}
    stored = {each.removeprefix(spelling.prefix): info.shape[0] if info.shape else 1 for each, info in tensors.items()}
    used = _layers_used(spelling, stored, layers)
    sources = spelling.read(stored, used)
    pieces: dict[str, Piece] = {}
    for own, source in sources.items():
        if _SCALES.fullmatch(source.name) or is_idle(spelling.prefix + source.name):
            continue
        canonical = part.canonical(own)
        if canonical in pieces:
            both = f"{shown(pieces[canonical].source.name)} and {shown(spelling.prefix + source.name)}"
            raise BdauditError(f"{shown(file.key)}: {both} are one tensor of the model; a loader takes either of them")
        whole = replace(source, name=spelling.prefix + source.name)
        pieces[canonical] = piece(file.key, whole, file.header.tensors, shown(file.key))
    _check_all_taken(file, name, spelling, stored, {each.name for each in sources.values()}, used)
    _check_scaled(file, name, spelling, pieces)
    _check_projection(found, file, name, pieces)
    check_numbers(pieces, frozenset(filter(part.is_constant, pieces)), f"{shown(file.key)}: {name}")
    found.parts[name] = pieces
    _hold_average(found, file, name, spelling)


def _check_scaled(file: OneFile, name: str, spelling: Spelling, pieces: Mapping[str, Piece]) -> None:
    """Raises ``InconclusiveError`` for scales without the mark by which ComfyUI heeds them: it takes the numbers as they are then."""
    scaled = next((each for each in pieces.values() if each.scale is not None), None)
    if scaled and f"{spelling.prefix}{_SCALED}" not in file.header.tensors:
        said = f"{shown(file.key)}: the {name} has scales, for {shown(scaled.source.name)} first, and no mark {spelling.prefix}{_SCALED}"
        raise InconclusiveError(f"{said}, without which loaders leave them out; get the weights in float16 or float32")


def _check_projection(found: Held, file: OneFile, name: str, pieces: Mapping[str, Piece]) -> None:
    """Raises ``InconclusiveError`` for a CLIP without the projection that makes Stable Diffusion 3's pooled vector."""
    if found.layout.name == "sd3" and name in _PROJECTED and _PROJECTION not in pieces:
        said = f"{shown(file.key)}: the {name} has no {_PROJECTION}, in place of which loaders put the identity, or nothing"
        raise InconclusiveError(f"{said}; say --part {name}=FILE, one with it, as the {name} of a model in diffusers' layout is")


def _spelling(found: Held, file: OneFile, name: str) -> Spelling | None:
    fitting = [each for each in SPELLINGS[found.layout.name][name] if each.fits(file.header.tensors)]
    if not fitting and file.part:
        said = f"--part {name}={shown(file.key)}: no {name} is known by its names there"
        raise InconclusiveError(f"{said}, the first tensor is {shown(next(iter(file.header.tensors), 'none'))}")
    if len(fitting) > 1:
        ways = " and ".join(f"{each.prefix}{each.marks[0]}" for each in fitting)
        raise InconclusiveError(f"{shown(file.key)} holds the {name} twice ({ways}); which of them is read depends on the loader; keep one")
    return fitting[0] if fitting else None


def _layers_used(spelling: Spelling, stored: Collection[str], layers: int) -> int:
    """As many as are asked for where one more lies there, which the family has no use for; else all."""
    there = spelling.layers(stored)
    return layers if there == layers + 1 else there


def _check_all_taken(file: OneFile, name: str, spelling: Spelling, stored: Collection[str], taken: set[str], used: int) -> None:
    """Raises ``BdauditError`` for a tensor that has the part's beginning and is none of its own."""
    beyond = f"transformer.resblocks.{used}."
    left = [
        each
        for each in stored
        if each not in taken and not _SCALES.fullmatch(each) and not is_idle(spelling.prefix + each) and not each.startswith(beyond)
    ]
    if left and (spelling.prefix or file.part):
        said = f"{shown(file.key)}: {len(left)} tensors of the {name} are none of its own, {shown(spelling.prefix + left[0])} first"
        raise BdauditError(f"{said}; without what they are for, the others may not mean what they seem to")


def _hold_average(found: Held, file: OneFile, name: str, spelling: Spelling) -> None:
    """The part's moving average, where it is whole; else its tensors are leftovers."""
    if name != found.layout.heeding[0] or not spelling.prefix:
        return
    names = ema_names(file.header.tensors, spelling.prefix)
    pieces = {}
    for canonical, own in found.parts[name].items():
        stored = names.get(own.source.name, "")
        if not stored or file.header.tensors[stored].shape != file.header.tensors[own.source.name].shape:
            return
        pieces[canonical] = piece(file.key, replace(own.source, name=stored), file.header.tensors, shown(file.key))
    check_numbers(pieces, frozenset(), f"{shown(file.key)}: the moving average of the {name}")
    found.averages[name] = pieces


def _leave(found: Held, file: OneFile) -> None:
    """Name what of a file is no part's."""
    prefixes = tuple(filter(None, found.claimed.get(file.key, ())))
    bare = "" in found.claimed.get(file.key, ())
    taken = {p.source.name for parts in (found.parts, found.averages) for each in parts.values() for p in each.values()}
    idle = [name for name in file.header.tensors if is_idle(name)]
    if idle:
        found.aside.append(f"{len(idle)} tensors of {shown(file.key)} that no part is built from, {shown(idle[0])} first")
    left = [
        name
        for name in file.header.tensors
        if name not in taken and not name.startswith(prefixes) and not is_idle(name) and not (bare and _SCALES.fullmatch(name))
    ]
    if left:
        found.leftovers[file.key] = left
