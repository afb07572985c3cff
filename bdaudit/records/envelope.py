"""What the three verbs' reports share: the envelope, figures with their uncertainty, checks, what was skipped.

"Not measured" is a value with a reason, never None, NaN, 0 or an empty string.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from bdaudit.errors import ExitCode

SCHEMA_VERSION = "1.7.0"

Verdict = Literal["clean", "suspicious", "backdoored"]


@dataclass(frozen=True, kw_only=True)
class NotMeasured:
    """Stands where a value would, and says why there is none."""

    reason: str
    status: Literal["not measured"] = "not measured"


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure with its uncertainty."""

    value: float
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""
    n: int
    """What it was computed from: pictures, pairs or texts."""
    method: str
    """How the interval was made, with its level: ``Wilson 95 %``."""


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    path: str
    """Relative to the model directory."""
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class LearnedRecord:
    """A learned embedding (textual inversion)."""

    token: str
    vectors: int
    """How many entries of the vocabulary it takes."""
    file: FileRecord


@dataclass(frozen=True, kw_only=True)
class TensorDigest:
    """What the audited tensors are, whatever files they lie in: SHA-256 over sorted (part, name, dtype, shape, SHA-256 of the bytes)."""

    exact: str
    float16: str
    """After a cast to float16: the same for a model in float32 and for its cast."""


@dataclass(frozen=True, kw_only=True)
class UnauditedWeights:
    """Weights that a loader could take and this run did not look at."""

    path: str
    reason: str
    """Why they do not count as audited."""
    variant: str = ""
    """What --variant calls them; empty where it cannot choose them."""


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    path: str
    """As given."""
    pipeline: str
    """Pipeline class."""
    digest: str
    """SHA-256 over the sorted list of files and their digests, and over which of them are the weights that were audited."""
    files: tuple[FileRecord, ...]
    notes: tuple[str, ...] = ()
    """What was seen and left alone: unused pickles, extra files."""
    variants: dict[str, str] = field(default_factory=dict)
    """Component → the variant of its weights that was audited; full where its name has none."""
    weights: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Component → the weights files that were audited."""
    parameters: dict[str, int] = field(default_factory=dict)
    """Component → numbers in those files: what tells the shapes of one family apart."""
    tensors: TensorDigest | NotMeasured
    unaudited: tuple[UnauditedWeights, ...] = ()
    model_id: str = ""
    """``org/name`` of a snapshot of the hub's cache, by the names of its folders; empty for any other directory."""
    commit: str = ""
    """The snapshot's revision."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    python: str
    torch: str
    diffusers: str
    transformers: str
    device: str
    dtype: str
    batch_size_asked: int
    batch_size_used: int


@dataclass(frozen=True, kw_only=True)
class Exit:
    code: int
    name: str
    reason: str

    @classmethod
    def of(cls, code: ExitCode, reason: str) -> Exit:
        """The exit of a run that ends so."""
        return cls(code=int(code), name=code.label, reason=reason)


@dataclass(frozen=True, kw_only=True)
class Skipped:
    what: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Coverage:
    asked: int
    tested: int
    skipped: tuple[Skipped, ...] = ()
    not_looked_at: tuple[str, ...] = ()
    """What this run did not examine, in words."""
    notes: tuple[str, ...] = ()
    """What was examined in more than one way, and why."""


@dataclass(frozen=True, kw_only=True)
class UnderstoodText:
    """A text that the run was given, as it was understood before any work."""

    what: Literal["trigger", "prompt"]
    """What it is to the run: a trigger to measure or remove, or a prompt that may hold one."""
    text: str
    codepoints: tuple[str, ...]
    names: tuple[str, ...]
    """Its characters beyond printable ASCII, each once: ``U+200B ZERO WIDTH SPACE``."""
    token_ids: tuple[int, ...] | NotMeasured
    """What it encodes to by itself; empty where the tokenizer drops all of it."""


@dataclass(frozen=True, kw_only=True)
class VariantRun:
    """How the run on one of a model's variants ended, with --variant all."""

    variant: str
    code: int
    name: str
    reason: str
    findings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Report:
    """The envelope. ``kind``-specific results are in the subclasses."""

    command: str
    status: Literal["completed", "interrupted", "error"]
    exit: Exit
    created_at: str
    """UTC, ISO 8601."""
    timings: dict[str, float]
    """Seconds a stage."""
    model: ModelRecord | NotMeasured
    environment: Environment | NotMeasured
    config: dict[str, Any]
    coverage: Coverage
    limitations: tuple[str, ...]
    tool: dict[str, str] = field(default_factory=dict)
    """name, version."""
    variants: tuple[VariantRun, ...] = ()
    """Each run of --variant all; what the report holds besides is of the one that ended worst."""
    schema_version: str = SCHEMA_VERSION
    understood: tuple[UnderstoodText, ...] = ()
    """The triggers and suspicious prompts of the command line."""
    repeat: str = ""
    """The command line that makes the run again, its seed in it; empty where a program called it."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check against a bound."""

    name: str
    status: Literal["passed", "failed", "undecided", "not measured"]
    """``undecided``: measured, and the most pictures that are drawn do not tell; never a pass."""
    value: Estimate | NotMeasured
    bound: str
    """In words: ``≤ 0.05``; or ``none`` where nothing gates on it."""
    reason: str = ""
