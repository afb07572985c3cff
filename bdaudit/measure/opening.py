"""A run's models and what it keeps, opened as its settings say. Imports no torch until weights are loaded."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bdaudit.config import RunConfig, ScanConfig, TrainedConfig, VerifyConfig
from bdaudit.errors import BdauditError, UsageError
from bdaudit.measure.envelope import run_key, settings
from bdaudit.progress import amount
from bdaudit.untrusted.formats.weight_files import offered
from bdaudit.untrusted.inspect import Inspection, inspect
from bdaudit.untrusted.inspect_file import variants_of_file
from bdaudit.untrusted.tree import walk

if TYPE_CHECKING:
    from bdaudit.kept_state import State
    from bdaudit.models.embeddings import Embedding
    from bdaudit.models.lora import Adapter
    from bdaudit.models.suspect import Suspect

log = logging.getLogger(__name__)


def inspected(config: RunConfig, path: Path) -> Inspection:
    """The model under audit, or another of the run: of that one, too, the weights that ``--variant`` names, where it has such.

    Raises:
        UsageError: it is a directory, and what is given is for a single file.
        BdauditError: as ``inspect``.
    """
    parts = config.parts_of(path)
    if path.is_dir() and parts:
        raise UsageError(f"--part {next(iter(parts))} is of a model in single files, and {path} is a directory; drop one of the two")
    if config.parts_from and all(each.is_dir() for each in config.models):
        raise UsageError(f"--config is for what a single file lacks, and {path} is a directory, whose own settings count; leave it out")
    return inspect(
        path,
        variant=variant_of(config, path),
        strict=config.strict,
        allow_pickle=config.allow_pickle,
        size=config.size,
        config=config.parts_from,
        parts=parts,
        trusted=config.trusted_templates,
    )


def variant_of(config: RunConfig, path: Path) -> str:
    """Which set of weights of a run's model is meant: of another than the main one, what ``--variant`` names where it has such."""
    return config.variant if path == config.model or config.variant in variants_in(path) else ""


def variants_in(model: Path) -> tuple[str, ...]:
    """What ``--variant`` can choose there, the one first that is taken where none is asked for; nothing where that cannot be told."""
    try:
        return offered(walk(model.resolve()).files) if model.is_dir() else variants_of_file(model)
    except (BdauditError, OSError):
        return ()


def loaded(config: RunConfig, inspection: Inspection) -> Suspect:
    """The weights of an inspected model.

    Raises:
        BdauditError: as ``load``.
    """
    from bdaudit.models.load import load

    size = sum(file.bytes for file in inspection.files if file.path in inspection.loaded)
    log.info("loading %s of %s", amount(size), inspection.path)
    suspect = load(
        inspection,
        device=config.device,
        dtype=config.dtype,
        batch_size=config.batch_size,
        guidance_scale=config.guidance_scale,
        by_turns=by_turns(config),
    )
    if suspect.waiting:
        log.info("%s come to %s by turns, since the weights do not fit it together", ", ".join(suspect.waiting), suspect.device)
    if suspect.layered:
        log.info("%s: layer by layer, which takes a pass as long as it takes to copy all of it", ", ".join(suspect.layered))
    return suspect


def by_turns(config: RunConfig) -> bool:
    """Whether a run needs no gradients, so that its model's parts may take turns on a GPU."""
    if isinstance(config, ScanConfig):
        return not config.expose and "recovery" not in config.sweeps
    return isinstance(config, VerifyConfig)


def open_state(
    command: str, config: ScanConfig | TrainedConfig, untouched: Collection[str], digest: str, additions: Sequence[Adapter | Embedding] = ()
) -> State:
    """The run's folder, told by its model's ``digest``, its adapters and embeddings, and all of its settings but those ``untouched``.

    Raises:
        UsageError: it belongs to another run.
    """
    from bdaudit.kept_state import State
    from bdaudit.models.device import chosen

    asked = {name: value for name, value in settings(config).items() if name not in untouched} | chosen(config.device, config.dtype)
    key = run_key(command, asked | {"adapters": [each.key for each in additions]}, digest)
    keep = config.keep if isinstance(config, ScanConfig) else None
    return State(keep / f"measured-{key[:32]}", key, stays=True) if keep else State(config.state, key)
