"""Which weights files a loader opens for each model, and what is in them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from bdaudit.errors import BdauditError, InconclusiveError, RefusedError, UsageError
from bdaudit.untrusted import layouts
from bdaudit.untrusted.layouts.layout import NEVER_LOADED, Part
from bdaudit.untrusted.leftovers import OTHER_FRAMEWORKS
from bdaudit.untrusted.rules import PICKLE_SUFFIXES
from bdaudit.untrusted.safetensors_header import read_header
from bdaudit.untrusted.shapes import Tensors
from bdaudit.untrusted.torch_file import read_torch
from bdaudit.untrusted.tree import Reader, shown

Models = Mapping[str, Part]
"""The parts that have weights."""
FULL = "full"
"""What ``--variant`` calls weights without a variant in their name."""
_WHEREVER = re.compile(
    r"(?P<folder>(?:.+/)?)(?:model|(?:diffusion_)?pytorch_model)(?:\.(?P<file>[\w.-]+))?\.(?P<kind>safetensors|bin)"
    r"(?:\.index(?:\.(?P<index>[\w-]+))?\.json)?",
    re.DOTALL,
)
"""Weights or an index of them, named as loaders look for them, in any folder."""
_FIRST = ("", "fp16", "bf16")
"""The variants that are taken before others, where none is asked for."""


class MissingShardError(BdauditError):
    """An index lists a file that is not there, so nothing can load the set."""


@dataclass(frozen=True)
class WeightSet:
    """The weights of one part, in one file or in several that an index lists."""

    index: str
    """Empty for a single file."""
    files: dict[str, Tensors]

    @property
    def path(self) -> str:
        """The file that names it."""
        return self.index or next(iter(self.files))

    @property
    def tensors(self) -> Tensors:
        """All of its tensors; no two of its files hold one of the same name."""
        return {name: info for tensors in self.files.values() for name, info in tensors.items()}


def _names(component: str, part: Part, variant: str) -> tuple[str, str]:
    middle = f".{variant}" if variant else ""
    stem = f"{component}/{part.stem}"
    return f"{stem}{middle}.safetensors", f"{stem}.safetensors.index{middle}.json"


def _pickle(component: str, part: Part, variant: str) -> str:
    return f"{component}/{part.pickled}{'.' if variant else ''}{variant}.bin"


def variants_of(component: str, part: Part, files: Iterable[str], *, pickled: bool = False) -> tuple[str, ...]:
    """The variants that ``from_pretrained(variant=…)`` takes of a component, "" for none: those that are taken first come first."""
    pattern = rf"{component}/(?:{part.stem}(?:\.(?P<file>[\w.-]+))?\.safetensors"
    pattern += rf"|{part.stem}\.safetensors\.index(?:\.(?P<index>[\w.-]+))?\.json)"
    if pickled:
        pattern = rf"{component}/{part.pickled}(?:\.(?P<file>[\w.-]+))?\.bin(?:\.index(?:\.(?P<index>[\w.-]+))?\.json)?"
    matches = [match for path in files if (match := re.fullmatch(pattern, path))]
    found = {next((v for v in match.groupdict().values() if v), "") for match in matches}
    found = {v for v in found if re.search(r"-\d{5}-of-\d{5}$", v) is None}  # one file of several, which an index lists
    return tuple(sorted(found, key=_order))


def offered(files: Iterable[str]) -> tuple[str, ...]:
    """What ``--variant`` can choose of a directory's files, the one first that is taken where none is asked for."""
    found = {v for component, part in layouts.models().items() for v in variants_of(component, part, files)}
    return tuple(map(spelled, sorted(found, key=_order)))


def _order(variant: str) -> tuple[int, str]:
    return (_FIRST.index(variant) if variant in _FIRST else len(_FIRST), variant)


def lone_pickles(files: dict[str, int], models: Models) -> list[str]:
    """Pickles, or indexes of such, that a loader takes because there are no safetensors of their variant."""
    lone = []
    for component, part in models.items():
        safe = variants_of(component, part, files)
        lone += [path for path in files for v in variants_of(component, part, [path], pickled=True) if v not in safe]
    return lone + _lone_elsewhere(files, models)


def _lone_elsewhere(files: dict[str, int], models: Models) -> list[str]:
    """The same in a folder with a config, of which a loader makes a part of the model: ``unet_ema``, ``checkpoint-500/unet``."""
    found: dict[bool, dict[tuple[str, str], list[str]]] = {True: {}, False: {}}
    for path in files:
        match = _WHEREVER.fullmatch(path)
        folder = match["folder"] if match else ""
        place = PurePosixPath(folder)
        if match and str(place) not in models and place.name not in NEVER_LOADED and f"{folder}config.json" in files:
            variant = match["file"] or match["index"] or ""
            found[match["kind"] == "bin"].setdefault((folder, variant), []).append(path)
    return [path for key, paths in found[True].items() if key not in found[False] for path in paths]


def spelled(variant: str) -> str:
    """The variant as ``--variant`` has it."""
    return variant or FULL


def choose_variants(files: dict[str, int], models: Models, *, asked: str = "", allow_pickle: bool = False) -> dict[str, str]:
    """Component → variant: the one asked for where the component has it, else full weights, fp16, bf16 or another, what there is.

    With ``allow_pickle``, a model without safetensors may have its weights as one ``.bin`` instead.

    Raises:
        RefusedError: a model has weights as pickles alone, and they are not allowed or are no single ``.bin``.
        UsageError: no component has the variant asked for.
        InconclusiveError: a model has weights of another format alone.
        BdauditError: a model has no weights.
    """
    has = {c: variants_of(c, part, files) for c, part in models.items()}
    if allow_pickle:
        pickled = {c: [v for v in variants_of(c, p, files, pickled=True) if _pickle(c, p, v) in files] for c, p in models.items()}
        has = {c: (*found, *(v for v in pickled[c] if v not in found)) for c, found in has.items()}
    if not all(has.values()):
        _complain(files, {c: models[c] for c, found in has.items() if not found}, allow_pickle)
    wanted = "" if asked == FULL else asked
    if asked and not any(wanted in found for found in has.values()):
        there = sorted({spelled(v) for found in has.values() for v in found})
        raise UsageError(f"--variant {shown(asked)}: no part has such weights; there are {', '.join(map(shown, there))}")
    return {c: wanted if wanted in found else found[0] for c, found in has.items()}


def _complain(files: dict[str, int], lacking: Models, allow_pickle: bool) -> None:
    pickled = {c: [p for p in files if p.startswith(f"{c}/") and os.path.splitext(p)[1].lower() in PICKLE_SUFFIXES] for c in lacking}
    if any(pickled.values()):
        why = "is not the one .bin that --allow-pickle reads" if allow_pickle else "could only be loaded by unpickling"
        tried = not allow_pickle and all(_pickle(c, part, "") in files for c, part in lacking.items())
        advice = "--allow-pickle reads tensors, and nothing else" if tried else "get safetensors: `hf download ID --local-dir DIR`"
        raise RefusedError([f"{c}: no safetensors, and {shown(p[0])} {why}; {advice}" for c, p in pickled.items() if p])
    others = {c: [p for p in files if p.startswith(f"{c}/") and os.path.splitext(p)[1].lower() in OTHER_FRAMEWORKS] for c in lacking}
    if any(others.values()):
        said = "; ".join(f"{c}: no safetensors, and {shown(p[0])} is {_kind(p[0])}, which is not supported" for c, p in others.items() if p)
        raise InconclusiveError(f"{said}; get safetensors: `hf download ID --local-dir DIR`")
    said = "; ".join(f"{c}: no weights, expected {_names(c, part, '')[0]}" for c, part in lacking.items())
    raise BdauditError(f"{said}; fetch them: `hf download ID --local-dir DIR`")


def _kind(path: str) -> str:
    return "GGUF, quantised weights" if path.lower().endswith(".gguf") else "of another framework"


def weights_of(component: str, part: Part, variant: str, reader: Reader) -> WeightSet:
    """The weights files a loader opens, and their tensors: a pickle only where ``choose_variants`` was allowed to take one.

    diffusers prefers an index to a single file, transformers the other way round.

    Raises:
        RefusedError: pickles under another name, index entries that leave the folder, a pickle of more than tensors.
        BdauditError: damaged or missing files, an index that does not match them.
    """
    single, index = _names(component, part, variant)
    endings = (f".{variant}.safetensors.index.json", f".safetensors.{variant}.index.json")
    if variant and any(f"{component}/{part.stem}{ending}" in reader.files for ending in endings):
        raise BdauditError(f"{component}: an index of a deprecated name; save the model again with a current diffusers")
    if single not in reader.files and index not in reader.files:
        pickle = _pickle(component, part, variant)
        return WeightSet("", {pickle: read_torch(reader, pickle)})
    if index in reader.files and (part.library == "diffusers" or single not in reader.files):
        return sharded(index, reader)
    return WeightSet("", {single: read_header(reader, single)})


def sharded(index: str, reader: Reader) -> WeightSet:
    """The set that an index lists.

    Raises:
        MissingShardError: a file of it is not there.
        RefusedError, BdauditError: as ``weights_of``.
    """
    files: dict[str, Tensors] = {}
    for path, expected in sorted(_shards(index, reader).items()):
        files[path] = read_header(reader, path)
        if set(files[path]) != expected:
            raise BdauditError(f"{shown(path)} does not hold the tensors that {shown(index)} lists for it")
    return WeightSet(index, files)


def _shards(index: str, reader: Reader) -> dict[str, set[str]]:
    content = reader.json(index)
    where = shown(index)
    weight_map = content.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not isinstance(content.get("metadata"), dict):
        raise BdauditError(f"{where}: expected metadata and a weight_map")
    shards: dict[str, set[str]] = {}
    for tensor, name in weight_map.items():
        if not isinstance(name, str):
            raise BdauditError(f"{where}: {shown(tensor)} is in {shown(name)}; expected a file name")
        if re.fullmatch(r"[\w-][\w.-]*", name, re.ASCII) is None:
            raise RefusedError([f"{where}: the entry {shown(name)} leads out of the folder"])
        if not name.endswith(".safetensors"):
            raise RefusedError([f"{where}: the entry {shown(name)} could only be loaded by unpickling"])
        shards.setdefault(f"{index.rpartition('/')[0]}/{name}".lstrip("/"), set()).add(tensor)
    missing = sorted(set(shards) - set(reader.files))
    if missing:
        raise MissingShardError(f"{shown(missing[0])} is missing; {where} lists it")
    return shards


def check_memory(total: int) -> None:
    """Compare the weights' bytes with the machine's memory.

    Raises:
        BdauditError: they cannot fit.
    """
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if total > memory:
        raise BdauditError(f"the weights take {total / 1e9:.1f} GB, this machine has {memory / 1e9:.1f} GB of memory")
