"""A repair as one small file: safetensors with the differences of the changed tensors, and in its metadata what they belong to.

``NAME`` is the component and the parameter, ``unet.mid_block.…``; the value is after − before in float32. Adding it to the
model with the recorded digest gives the repaired one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from bdaudit.errors import BdauditError, UsageError
from bdaudit.models.rounding import Differences
from bdaudit.targets import whole
from bdaudit.tensor_file import open_tensors
from bdaudit.untrusted.open_file import json_of, sha256
from bdaudit.untrusted.safetensors_header import MAX_ITEMS
from bdaudit.untrusted.tree import shown

PROVENANCE = "bdaudit"
"""The metadata's key; its value is JSON text."""


def write_patch(path: Path, differences: Differences, provenance: Mapping[str, Any]) -> str:
    """Write the file, whole or not at all; its SHA-256.

    Raises:
        BdauditError: the disk is full or read-only.
    """
    tensors = {f"{component}.{name}": d.contiguous() for component, named in differences.items() for name, d in named.items()}
    try:
        with whole(path) as partial:
            save_file(tensors, partial, metadata={PROVENANCE: json.dumps(provenance, allow_nan=False)})  # two keys would come in any order
            digest = sha256(partial, f"--patch {path}")
            partial.chmod(0o644)  # safetensors makes files that no one else can read
    except (OSError, SafetensorError) as error:
        raise BdauditError(f"cannot write {path}: {error}; nothing was left there") from error
    return digest


def read_patch(path: Path, digest: str, components: Sequence[str]) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Differences by component and name, and the provenance; ``digest`` is of the model that it is for, whose ``components`` it may change.

    Shapes are for the model to check.

    Raises:
        UsageError: not a patch of ours, one for another model, whose tensors are not read, or one whose figures are none.
        RefusedError: a pickle.
    """
    said = f"--from-patch {path}"
    with open_tensors(path, said, error=lambda why: UsageError(f"{why}: this is no patch that bdaudit wrote")) as file:
        provenance = _provenance(file.header.metadata.get(PROVENANCE), said)
        if provenance["input_digest"] != digest:
            of = f"{said} was made for the model with digest {provenance['input_digest'][:12]!a}"
            raise UsageError(f"{of}, this one has {digest[:12]}; a patch fits the very model that it was made for alone")
        for key, info in file.header.tensors.items():
            component, _, name = key.partition(".")
            if component not in components or not name or info.dtype != "F32":
                raise UsageError(f"{said}: {shown(key)} is no float32 difference of {' or '.join(components)}")
        tensors, _ = file.load()
    differences: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise UsageError(f"{said}: {shown(key)} holds NaN or infinity")
        component, _, name = key.partition(".")
        differences.setdefault(component, {})[name] = tensor
    if not differences:
        raise UsageError(f"{said}: it changes nothing")
    return differences, provenance


def _provenance(text: str | None, said: str) -> dict[str, Any]:
    if text is None:
        raise UsageError(f"{said}: this is no patch that bdaudit wrote: it has no record of what it is for")
    found = json_of(text.encode("utf-8", "surrogatepass"), f"{said}: its record", MAX_ITEMS)
    if not isinstance(found, dict) or not isinstance(found.get("input_digest"), str):
        raise UsageError(f"{said}: it does not say which model it is for")
    return found


def named_triggers(provenance: Mapping[str, Any]) -> tuple[str, ...]:
    """The triggers that the patch says it removes."""
    named = provenance.get("triggers")
    return tuple(text for text in named if isinstance(text, str) and text) if isinstance(named, list) else ()
