"""A run's models, opened as its settings say. Imports no torch until weights are loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bdaudit.config import RunConfig
from bdaudit.errors import BdauditError
from bdaudit.untrusted.formats.weight_files import offered
from bdaudit.untrusted.inspect import Inspection, inspect
from bdaudit.untrusted.tree import walk

if TYPE_CHECKING:
    from bdaudit.models.suspect import Suspect


def inspected(config: RunConfig, path: Path) -> Inspection:
    """The model under audit, or another of the run: of that one, too, the weights that ``--variant`` names, where it has such.

    Raises:
        BdauditError: as ``inspect``.
    """
    variant = config.variant if path == config.model or config.variant in variants_in(path) else ""
    return inspect(path, variant=variant, strict=config.strict, allow_pickle=config.allow_pickle, size=config.size)


def variants_in(directory: Path) -> tuple[str, ...]:
    """What ``--variant`` can choose there, the one first that is taken where none is asked for; nothing where that cannot be told."""
    try:
        return offered(walk(directory.resolve()).files)
    except (BdauditError, OSError):
        return ()


def loaded(config: RunConfig, inspection: Inspection) -> Suspect:
    """The weights of an inspected model.

    Raises:
        BdauditError: as ``load``.
    """
    from bdaudit.models.load import load

    return load(inspection, device=config.device, dtype=config.dtype, batch_size=config.batch_size, guidance_scale=config.guidance_scale)
