"""A repaired model on disk: a copy of the directory in which only the changed tensors differ. Whole, or not there."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from bdaudit.errors import BdauditError, UsageError
from bdaudit.pipeline.inspect import Inspection


def check_target(out: Path) -> None:
    """Refuse a target that exists and is not an empty directory, before any work is done.

    Raises:
        UsageError: it is a file, holds something, or its parent is missing.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; expected a directory that does not exist yet")
    if out.is_dir() and any(out.iterdir()):
        raise UsageError(f"--out {out} is not empty; name a new directory, or remove this one yourself")
    if not out.parent.is_dir():
        raise UsageError(f"--out {out}: the folder {out.parent} does not exist; create it first")


def write_model(inspection: Inspection, out: Path, changed: Mapping[str, Mapping[str, Tensor]], extra: Mapping[str, bytes]) -> None:
    """Write ``inspection``'s directory to ``out`` with ``changed`` (component → tensor name → tensor) in place of the old tensors.

    Only ``inspection.files`` are copied: no pickles, no code. Every safetensors file of a changed component is rewritten,
    variants too, so that none keeps the old weights; each tensor keeps its file and its dtype. ``extra`` are further
    files, by relative name.

    Raises:
        BdauditError: a changed tensor that no file of its component holds; the disk is full or read-only.
    """
    try:
        staging = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise BdauditError(f"cannot write beside {out}: {error}") from error
    try:
        for record in inspection.files:
            _copy_or_rewrite(Path(inspection.path), staging, record.path, changed)
        _check_all_written(staging, changed)
        for name, content in extra.items():
            (staging / name).write_bytes(content)
        staging.chmod(0o755)
        if out.exists():
            out.rmdir()
        os.rename(staging, out)
    except OSError as error:
        raise BdauditError(f"cannot write {out}: {error}; nothing was left there") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _copy_or_rewrite(source: Path, staging: Path, relative: str, changed: Mapping[str, Mapping[str, Tensor]]) -> None:
    target = staging / relative
    target.parent.mkdir(parents=True, exist_ok=True)
    component = relative.split("/")[0]
    if component not in changed or not relative.endswith(".safetensors"):
        shutil.copyfile(source / relative, target)
        return
    with safe_open(source / relative, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name, old in tensors.items():
        new = changed[component].get(name, changed[component].get(_module_name(name)))
        if new is not None:
            tensors[name] = new.detach().to("cpu", old.dtype).contiguous()
    save_file(tensors, target, metadata=metadata)


def _module_name(stored: str) -> str:
    """The name in the loaded module of a tensor in a file: transformers 5 drops the prefix that Stable Diffusion's files have."""
    return stored.removeprefix("text_model.")


def _check_all_written(staging: Path, changed: Mapping[str, Mapping[str, Tensor]]) -> None:
    for component, tensors in changed.items():
        held: set[str] = set()
        for path in (staging / component).glob("*.safetensors"):
            with safe_open(path, framework="pt") as file:
                held.update(name for stored in file.keys() for name in (stored, _module_name(stored)))  # noqa: SIM118
        missing = sorted(set(tensors) - held)
        if missing:
            said = f"no weights file holds {missing[0]} ({len(missing)} tensors in all)"
            raise BdauditError(f"{component}: {said}; the model's layout is not supported")
