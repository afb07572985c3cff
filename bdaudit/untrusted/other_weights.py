"""The weights that lie beside the audited ones: which of them are the audited ones again, and which nobody has looked at.

A set counts as audited where the audited one determines it: each tensor has the same bytes, or those of the audited tensor's cast to
float16, bfloat16 or float32. The other way round is no proof: weights that *become* the audited ones by a cast may differ from them in
every digit that the cast drops, and whoever wrote them chose those digits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from bdaudit.errors import BdauditError, InconclusiveError, RefusedError
from bdaudit.untrusted import leftovers, tokenizer_files
from bdaudit.untrusted.fingerprint import CASTS, Fingerprint, TensorDigests, counts_up, fingerprint, tensor_digests
from bdaudit.untrusted.formats.weight_files import (
    MissingShardError,
    Models,
    WeightSet,
    lone_pickles,
    sharded,
    spelled,
    variants_of,
)
from bdaudit.untrusted.leftovers import WEIGHTS, Leftover, Outcome
from bdaudit.untrusted.safetensors_header import NoSafetensorsError, read_header
from bdaudit.untrusted.shapes import Tensors
from bdaudit.untrusted.tree import PointerError, Reader, Tree, shown

_PLACES = "embeddings.position_ids"

DETERMINED = "weights that are the audited ones, or their cast"
_MOST = 64
"""Sets beside the audited ones whose headers are read."""
_COMPANIONS = ("model_index.json", "config.json", "scheduler_config.json", *tokenizer_files.NAMES)


@dataclass(frozen=True)
class Unaudited:
    """Weights that a loader could take and this run did not look at."""

    path: str
    reason: str
    variant: str = ""
    """What ``--variant`` calls them; empty where it cannot choose them."""


@dataclass
class Audited:
    """What one look at the weights found."""

    digests: dict[str, str] = field(default_factory=dict)
    """Path → SHA-256, of the files that were read."""
    tensors: TensorDigests | None = None
    """None where a part was loaded from a pickle."""
    unaudited: list[Unaudited] = field(default_factory=list)
    notes: dict[str, list[str]] = field(default_factory=dict)
    """Words → paths."""


def look(reader: Reader, tree: Tree, sets: dict[str, WeightSet], models: Models) -> Audited:
    """Digest the audited ``sets``, find what lies beside them, and compare.

    Raises:
        BdauditError: an audited file changed while it was read.
    """
    found, aside = Audited(), Reader(reader.root, reader.files)
    possible: list[tuple[WeightSet, str]] = []
    for leftover, held in _beside(aside, tree, sets, models):
        row = leftovers.row_of(leftover)
        if row.outcome is Outcome.NOTE:
            found.notes.setdefault(row.words, []).append(leftover.path)
            continue
        reason = leftover.trouble or row.words
        if held is not None:
            part, reason = _comparable(held, sets, models, aside)
            if part:
                possible.append((held, part))
                continue
        found.unaudited.append(_unaudited(leftover.path, reason, models))
    prints = _digest_audited(reader, sets, models, {info.dtype for held, _ in possible for info in held.tensors.values()}, found)
    for held, part in possible:
        reason = _compared(held, prints.get(part, {}), aside, found)
        if reason:
            found.unaudited.append(_unaudited(held.path, reason, models))
        else:
            found.notes.setdefault(DETERMINED, []).append(held.path)
    return found


def _digest_audited(
    reader: Reader, sets: dict[str, WeightSet], models: Models, kinds: set[str], found: Audited
) -> dict[str, dict[str, Fingerprint]]:
    prints: dict[str, dict[str, Fingerprint]] = {}
    for part, held in sets.items():
        if not held.path.endswith(".bin"):
            prints[part] = prints_of(held, reader, {"F16", *kinds}, found)
            check_positions(part, prints[part])
    if len(prints) == len(sets):
        every = ((p, models[p], n, one) for p, of in prints.items() for n, one in of.items())
        found.tensors = tensor_digests({(p, part.canonical(n)): one for p, part, n, one in every if not part.is_constant(n)})
    return prints


def check_positions(part: str, prints: Mapping[str, Fingerprint]) -> None:
    """Raises ``InconclusiveError`` where a text encoder says in which place each token stands, and says it otherwise than by counting.

    transformers before 4.31 and the original code take that list as it lies there, and today's libraries count: of two models that the
    same file makes, one alone would be audited.
    """
    for name, one in prints.items():
        if name.endswith(_PLACES) and not counts_up(one):
            said = f"{part}: {shown(name)} does not count up from 0, and which loader heeds it depends on its version"
            raise InconclusiveError(f"{said}; remove that tensor, or save the model again with a current library")


def prints_of(held: WeightSet, reader: Reader, to: set[str], found: Audited) -> dict[str, Fingerprint]:
    """The fingerprints of a set's tensors; its files' digests go to ``found``."""
    prints: dict[str, Fingerprint] = {}
    for path, tensors in held.files.items():
        found.digests[path], some = fingerprint(reader, path, tensors, to)
        prints |= some
    return prints


def _unaudited(path: str, reason: str, models: Models) -> Unaudited:
    part = path.split("/")[0]
    names = variants_of(part, models[part], [path]) if part in models else ()
    return Unaudited(shown(path), reason, spelled(names[0]) if names else "")


def _beside(aside: Reader, tree: Tree, sets: dict[str, WeightSet], models: Models) -> Iterator[tuple[Leftover, WeightSet | None]]:
    """Whatever is not loaded and could hold weights: links, sets of an index, single files."""
    taken = {path for held in sets.values() for path in (*held.files, held.index)}
    for path, link in tree.links.items():
        yield Leftover(path, link=link), None
    for path in lone_pickles(aside.files, models):
        if path not in taken:
            yield Leftover(path, alone=True), None
    for path in aside.files:
        if path.lower().endswith(leftovers.WHOLE):
            yield Leftover(path, trouble="it is a whole pipeline in one file, which is not opened"), None
    read = 0
    indexes = [path for path in aside.files if path not in taken and leftovers.is_index(path)]
    for path in [*indexes, *aside.files]:
        weighty = path in indexes or PurePosixPath(path).suffix.lower() in WEIGHTS
        if path in taken or not weighty:
            continue
        taken.add(path)
        read += 1
        leftover, held = _read(aside, path) if read <= _MOST else (Leftover(path, trouble=f"more than {_MOST} others lie beside it"), None)
        taken |= set(held.files) if held else set()
        yield leftover, held


def _read(aside: Reader, path: str) -> tuple[Leftover, WeightSet | None]:
    try:
        held = sharded(path, aside) if path.endswith(".json") else WeightSet("", {path: read_header(aside, path)})
    except (NoSafetensorsError, PointerError, MissingShardError) as error:
        return Leftover(path, trouble=str(error), loadable=False), None
    except RefusedError as error:
        pickled = PurePosixPath(path).suffix.lower() in WEIGHTS  # a pickle under this name: what opens it as safetensors fails
        return Leftover(path, trouble=str(error), loadable=not pickled), None
    except BdauditError as error:
        return Leftover(path, trouble=str(error)), None
    return Leftover(path, held.tensors), held


def _comparable(held: WeightSet, sets: dict[str, WeightSet], models: Models, aside: Reader) -> tuple[str, str]:
    """The part whose audited weights may determine the set, or why none can; told by headers and small files alone."""
    other, reason = held.tensors, "its tensors are not those of an audited part"
    for part, audited in sets.items():
        mine = {name: info for name, info in audited.tensors.items() if not models[part].is_constant(name)}
        theirs = {name: info for name, info in other.items() if not models[part].is_constant(name)}
        if mine.keys() != theirs.keys():
            continue
        reason = _unlike(mine, theirs) or _other_settings(held.path, part, models, aside)
        if not reason:
            return part, ""
    return "", reason


def _unlike(mine: Tensors, theirs: Tensors) -> str:
    changed = {info.dtype for name, info in theirs.items() if info.dtype != mine[name].dtype}
    if any(info.shape != mine[name].shape for name, info in theirs.items()):
        return "its tensors have other shapes than the audited ones"
    if not changed <= set(CASTS):
        return f"its numbers are {', '.join(sorted(changed - set(CASTS)))}, which are never taken for the audited ones"
    floats = {info.dtype for info in theirs.values() if info.dtype in CASTS}
    return "its tensors are of several precisions" if changed and len(floats) > 1 else ""


def _other_settings(path: str, part: str, models: Models, aside: Reader) -> str:
    """What a loader of another folder would read there instead, where it differs from what was audited."""
    folder, _, _ = path.rpartition("/")
    if folder in ("", *models):
        return ""
    pairs = {f"{folder}/config.json": f"{part}/config.json"}
    above, _, own = folder.rpartition("/")
    if own in models and above:
        below = [name for name in aside.files if name.startswith(f"{above}/") and PurePosixPath(name).name in _COMPANIONS]
        pairs |= {name: name.removeprefix(f"{above}/") for name in below}
        folders = {name.rpartition("/")[0] for name in below}  # what such a folder lacks of the audited one, a loader does without
        lacking = (name for name in aside.files if PurePosixPath(name).name in _COMPANIONS and f"{above}/{name}" not in aside.files)
        for name in lacking:
            if name.count("/") == 1 and f"{above}/{name.rpartition('/')[0]}" in folders:
                return f"{shown(above)} has no {shown(name)}"
    for theirs, mine in pairs.items():
        if theirs in aside.files and not _same_settings(theirs, mine, aside):
            return f"{shown(theirs)} differs from {shown(mine)}"
    return ""


def _same_settings(theirs: str, mine: str, aside: Reader) -> bool:
    limit = tokenizer_files.LIMITS
    try:
        if not mine.endswith(".json"):
            return aside.content(theirs, limit[0]) == aside.content(mine, limit[0])
        return _settings(aside.json(theirs, limit)) == _settings(aside.json(mine, limit))
    except BdauditError:
        return False


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if not key.startswith("_") or key == "_class_name"}


def _compared(held: WeightSet, audited: dict[str, Fingerprint], aside: Reader, found: Audited) -> str:
    """Why the set is not what the audited one determines; empty where it is."""
    try:
        prints = prints_of(held, aside, set(), found)
    except BdauditError as error:
        return str(error)
    if not audited:
        return "the audited weights are a pickle, with which nothing is compared"
    for name, one in prints.items():
        if name in audited and audited[name].at(one.info.dtype) != one.exact:
            return f"{shown(name)} is not the audited tensor, nor its cast to {one.info.dtype}"
    return ""
