"""A repair as one small file: safetensors with the differences of the changed tensors, and in its metadata what they belong to.

``NAME`` is the component and the parameter, ``unet.mid_block.…``; the value is after − before in float32. Adding it to the
model with the recorded digest gives the repaired one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bdaudit.errors import BdauditError, UsageError
from bdaudit.models.save import Differences
from bdaudit.untrusted.tree import shown

COMPONENTS = ("unet", "text_encoder")
PROVENANCE = "bdaudit"
"""The metadata's key; its value is JSON text."""


def check_patch_target(path: Path) -> None:
    """Refuse a file that exists, before any work is done.

    Raises:
        UsageError: something is there, the suffix is another, or the folder is missing.
    """
    if path.suffix != ".safetensors":
        raise UsageError(f"--patch {path}: expected a name that ends in .safetensors")
    if path.exists():
        raise UsageError(f"--patch {path} exists; name a new file, or remove this one yourself")
    if not path.parent.is_dir():
        raise UsageError(f"--patch {path}: the folder {path.parent} does not exist; create it first")


def write_patch(path: Path, differences: Differences, provenance: Mapping[str, Any]) -> str:
    """Write the file, whole or not at all; its SHA-256.

    Raises:
        BdauditError: the disk is full or read-only.
    """
    tensors = {f"{component}.{name}": d.contiguous() for component, named in differences.items() for name, d in named.items()}
    partial = path.with_name(f".{path.name}.partial")
    try:
        save_file(tensors, partial, metadata={PROVENANCE: json.dumps(provenance, allow_nan=False)})  # two keys would come in any order
        with partial.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        partial.chmod(0o644)  # safetensors makes files that no one else can read
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        raise BdauditError(f"cannot write {path}: {error}; nothing was left there") from error
    finally:
        partial.unlink(missing_ok=True)
    return digest


def read_patch(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Differences by component and name, and the provenance; shapes are for the model to check.

    Raises:
        UsageError: not a patch of ours, or one whose figures are none.
    """
    try:
        with safe_open(path, framework="pt") as file:
            provenance = json.loads((file.metadata() or {})[PROVENANCE], parse_constant=_no_number)
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, ValueError, KeyError, RecursionError, SafetensorError) as error:
        raise UsageError(f"--from-patch {path}: this is no patch that bdaudit wrote: {shown(error)}") from error
    if not isinstance(provenance, dict) or not isinstance(provenance.get("input_digest"), str):
        raise UsageError(f"--from-patch {path}: it does not say which model it is for")
    differences: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        component, _, name = key.partition(".")
        if component not in COMPONENTS or not name or tensor.dtype != torch.float32 or not bool(torch.isfinite(tensor).all()):
            raise UsageError(f"--from-patch {path}: {shown(key)} is no finite float32 difference of {' or '.join(COMPONENTS)}")
        differences.setdefault(component, {})[name] = tensor
    if not differences:
        raise UsageError(f"--from-patch {path}: it changes nothing")
    return differences, provenance


def _no_number(constant: str) -> None:
    raise ValueError(f"{constant} is no figure")


def named_triggers(provenance: Mapping[str, Any]) -> tuple[str, ...]:
    """The triggers that the patch says it removes."""
    named = provenance.get("triggers")
    return tuple(text for text in named if isinstance(text, str) and text) if isinstance(named, list) else ()
