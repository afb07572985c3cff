"""The part of a report that is the same for the three verbs: tool, model, environment, settings, limits."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bdaudit.config import RunConfig
from bdaudit.records import Environment, FileRecord, LearnedRecord, ModelRecord, NotMeasured, TensorDigest, UnauditedWeights
from bdaudit.untrusted.formats.weight_files import spelled
from bdaudit.untrusted.inspect import File, Inspection
from bdaudit.version import __version__

if TYPE_CHECKING:
    from bdaudit.models.embeddings import Embedding
    from bdaudit.models.suspect import Suspect

LIMITATIONS = (
    "Only what is listed here was tested: a pass is no proof that the model holds no backdoor.",
    "Not looked at: backdoors without a trigger text, attacks in the sampler's random numbers, condition images, safety checker.",
    "Pictures and paths are by a deterministic first-order solver (DDIM; Euler's for a flow) over the model's own noise levels, whichever "
    "scheduler it names. What a caller may choose was left at its default: no negative prompt, prompt weights, clip skip or guidance "
    "rescale.",
    "Error rates hold for harmless texts like the controls, on this checkpoint, with these prompts and this seed.",
)

LIBRARIES = ("torch", "diffusers", "transformers")


def envelope(command: str, config: RunConfig, inspection: Inspection | None = None, suspect: Suspect | None = None) -> dict[str, Any]:
    """Keyword arguments that every ``Report`` takes; what is not known yet says so."""
    return {
        "command": command,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": model_record(config, inspection) if inspection else NotMeasured(reason="the model was not opened"),
        "environment": environment(config, suspect) if suspect else NotMeasured(reason="the model was not loaded"),
        "config": settings(config),
        "limitations": LIMITATIONS,
        "tool": {"name": "bdaudit", "version": __version__},
    }


def model_record(config: RunConfig, inspection: Inspection) -> ModelRecord:
    """What was opened, file by file."""
    return ModelRecord(
        path=str(config.model),
        pipeline=inspection.pipeline_class,
        digest=inspection.digest,
        files=file_records(inspection.files),
        notes=tuple(inspection.notes),
        variants={component: spelled(variant) for component, variant in inspection.variants.items()},
        weights=inspection.weights,
        parameters=inspection.parameters,
        tensors=_tensors(inspection),
        unaudited=tuple(UnauditedWeights(path=u.path, reason=u.reason, variant=u.variant) for u in inspection.unaudited),
        model_id=inspection.snapshot.model_id if inspection.snapshot else "",
        commit=inspection.snapshot.commit if inspection.snapshot else "",
    )


def file_records(files: Iterable[File]) -> tuple[FileRecord, ...]:
    """Files as a report has them."""
    return tuple(FileRecord(path=file.path, bytes=file.bytes, sha256=file.sha256) for file in files)


def learned_records(embeddings: Iterable[Embedding]) -> tuple[LearnedRecord, ...]:
    """Learned embeddings as a report has them."""
    return tuple(LearnedRecord(token=e.token, vectors=len(e.names), file=file_records([e.file])[0]) for e in embeddings)


def _tensors(inspection: Inspection) -> TensorDigest | NotMeasured:
    if inspection.tensors is None:
        return NotMeasured(reason="weights were loaded from a pickle, whose tensors are not read before they are loaded")
    return TensorDigest(exact=inspection.tensors.exact, float16=inspection.tensors.float16)


def environment(config: RunConfig, suspect: Suspect) -> Environment:
    """Versions and device, enough to repeat the run."""
    return Environment(
        python=platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
        device=str(suspect.device),
        dtype=str(suspect.dtype).removeprefix("torch."),
        batch_size_asked=config.batch_size,
        batch_size_used=suspect.batch_size,
    )


def settings(config: RunConfig) -> dict[str, Any]:
    """Every resolved setting as JSON can hold it."""
    plain = {field.name: getattr(config, field.name) for field in fields(config)}
    return {name: _plain(value) for name, value in plain.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return "not set" if value is None else value


def versions() -> dict[str, str]:
    """Of bdaudit and the libraries that what is kept follows from."""
    return {"bdaudit": __version__} | {name: version(name) for name in LIBRARIES}


def run_key(command: str, settings: Mapping[str, Any], digest: str) -> str:
    """SHA-256 that names a run: command, settings (of JSON's kinds; those that change no result left out), model digest, versions."""
    named = {"command": command, "settings": dict(settings), "model": digest, "versions": versions()}
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode("ascii")).hexdigest()
