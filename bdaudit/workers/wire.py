"""What crosses between a run and its workers: JSON in bytes, bounded and checked against its dataclass on arrival. Never an object.

A float goes through JSON to the bit (its shortest decimal form is read back as the same number), and a figure that is none does not pass.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from bdaudit.config import RunConfig
from bdaudit.errors import BdauditError
from bdaudit.measure.opening import variant_of
from bdaudit.untrusted.open_file import json_of

MOST_BYTES, MOST_ITEMS = 1 << 28, 1 << 24
"""Of one message."""

ADDED = ("adapters", "embeddings")
"""Settings of what is put into a model."""

Message = TypeVar("Message")


@dataclass(frozen=True, kw_only=True)
class ModelAsked:
    """A model, which every worker sees under the same path, and how it is opened: ``RunConfig``'s fields."""

    model: Path
    parts_from: Path | None
    parts: tuple[tuple[str, str, Path], ...]
    guidance_scale: float | None
    size: tuple[int, int] | None
    device: str
    dtype: str
    batch_size: int
    variant: str
    strict: bool
    allow_pickle: bool
    trusted_templates: tuple[str, ...]
    adapters: tuple[tuple[Path, float], ...] = ()
    embeddings: tuple[tuple[Path, str], ...] = ()

    @classmethod
    def of(cls, config: RunConfig, model: Path | None = None, adapters: Sequence[tuple[Path, float]] | None = None) -> ModelAsked:
        """A model of a run, the main one where none is named, with absolute paths; ``adapters`` where they are not those of ``config``."""
        path = model or config.model
        plain = {name: getattr(config, name) for name in cls.__dataclass_fields__ if name not in ADDED}
        parts = tuple(("", part, file.absolute()) for part, file in config.parts_of(path).items())
        every = getattr(config, "adapters", ()) if adapters is None else adapters
        embeddings = tuple((file.absolute(), token) for file, token in getattr(config, "embeddings", ()))
        place = path.absolute() if path.exists() else path  # an id of the hub's cache is no path
        folder = config.parts_from.absolute() if config.parts_from else None
        return cls(
            **plain | {"model": place, "parts": parts, "parts_from": folder, "variant": variant_of(config, path)},
            adapters=tuple((file.absolute(), scale) for file, scale in every),
            embeddings=embeddings,
        )

    def config(self) -> RunConfig:
        """What ``inspected`` and ``loaded`` take."""
        return RunConfig(**{name: value for name, value in vars(self).items() if name not in ADDED})


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What a worker is made with."""

    bench: str
    """A name in ``member.BENCHES``."""
    model: ModelAsked
    settings: dict[str, Any]
    """Of the bench."""
    threads: int
    """Of a worker on the CPU."""


@dataclass(frozen=True, kw_only=True)
class Hello:
    """What a worker says of itself before it is given anything."""

    name: str
    """Process and node."""
    digest: str
    tensors: str
    """Digest of the tensors; empty where there is none."""
    added: tuple[str, ...]
    """Keys of its adapters and embeddings."""
    versions: dict[str, str]
    device: str
    """Its kind: cpu or cuda."""
    dtype: str
    canary: tuple[float, ...]
    """Figures of texts that every worker measures."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of one block."""

    value: Any = None
    passes: int = 0
    """Forward passes that it took."""
    error: str = ""
    """What a declared error said, where there was one: the same block fails here as there."""


def packed(message: Any) -> bytes:
    """A dataclass or a list of them as bytes.

    Raises:
        ValueError: a figure is not finite.
    """
    return json.dumps(message, default=_plain, allow_nan=False, separators=(",", ":")).encode("ascii")


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else asdict(value)


def unpacked(data: bytes, kind: type[Message], of: str) -> Message:
    """The message of ``kind`` in ``data``; ``of`` says whose it is.

    Raises:
        BdauditError: not bytes, too long, no JSON, or of another kind.
    """
    if not isinstance(data, bytes) or len(data) > MOST_BYTES:
        raise BdauditError(f"{of} sent {type(data).__name__}; expected at most {MOST_BYTES:,} bytes of JSON")
    return fitted(json_of(data, of, MOST_ITEMS, error=BdauditError), kind, of)


def fitted(value: Any, kind: type[Message], of: str) -> Message:
    """``value``, JSON's, as ``kind``; raises ``BdauditError`` where it is none."""
    from pydantic import ValidationError

    any_kind: Any = kind  # for the cache, which asks mypy for something to hash
    try:
        made: Message = _adapter(any_kind).validate_python(value)
        return made
    except ValidationError as error:
        raise BdauditError(f"{of} sent what does not fit: {str(error)[:300]}") from error


@functools.cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)
