"""A scan's beginning: the model inspected and loaded with what is added to it, and the run that everything after works on."""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from bdaudit.config import ScanConfig
from bdaudit.kept_state import State
from bdaudit.measure.context_prompts import with_context
from bdaudit.measure.controls import kind_of
from bdaudit.measure.grader import Grader, load_grader
from bdaudit.measure.opening import inspected, loaded, open_state
from bdaudit.measure.prompts import default_prompts
from bdaudit.models.embeddings import Embedding, learned, read_embedding
from bdaudit.models.lora import Adapter, read_adapters
from bdaudit.models.suspect import Suspect
from bdaudit.progress import Progress
from bdaudit.records import NotMeasured, RecoveryRecord, ScanReport
from bdaudit.scan.cached import UNTOUCHED
from bdaudit.scan.candidates import listed
from bdaudit.scan.context import ScanContext
from bdaudit.scan.encoded import Encoded, encoded
from bdaudit.scan.exposure.copy import STOP, Stop
from bdaudit.scan.look import Looking
from bdaudit.scan.looked import Look
from bdaudit.scan.multiplicity import CandidateGroup
from bdaudit.scan.sweep.result import SIZES, SweepSizes
from bdaudit.untrusted.inspect import Inspection


@dataclass(frozen=True)
class ScanSettings:
    """What no flag changes."""

    per_kind: int = 16
    """Controls of each kind, where the kind has so many."""
    prompt_words: int = 24
    """Words of the prompts themselves among the controls."""
    sizes: SweepSizes = SIZES
    stop: Stop = STOP


SETTINGS = ScanSettings()


@dataclass
class Run:
    """What a run has so far; an interrupted one is reported from it."""

    config: ScanConfig
    settings: ScanSettings
    progress: Progress
    inspection: Inspection
    reference: Inspection | None
    """Its weights are loaded when something is found."""
    suspect: Suspect
    adapters: tuple[Adapter, ...]
    embeddings: tuple[Embedding, ...]
    state: State
    grader: Grader | NotMeasured | None
    """With ``--clip``."""
    candidates: dict[str, Encoded]
    """Each candidate and what it encodes to."""
    groups: tuple[CandidateGroup, ...] = ()
    context: ScanContext = field(init=False)
    looking: Looking = field(init=False)
    looks: dict[str, Look] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    passes: dict[str, int] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    """Workers that were dropped, and why."""
    judged: ScanReport | None = None
    """The report with every verdict, while the findings are looked into further."""

    @property
    def prompts(self) -> tuple[str, ...]:
        own = self.config.prompts or default_prompts()
        return tuple(dict.fromkeys((*own, *with_context(own, self.config.contexts, self.config.seed)))) if self.config.contexts else own

    @property
    def encoded(self) -> dict[str, Encoded]:
        """The candidates that encode to something."""
        return {text: each for text, each in self.candidates.items() if not each.empty}

    @property
    def drawn(self) -> list[str]:
        """Texts of sweeps that were drawn at random; no candidates."""
        return [text for group in self.groups for text in group.drawn]

    @property
    def recovery(self) -> RecoveryRecord | NotMeasured:
        return next((group.recovery for group in self.groups if group.recovery), ScanReport.recovery)

    def kind(self, text: str) -> str:
        return kind_of(self.suspect.tokenizer, text)


def opened(config: ScanConfig, settings: ScanSettings, progress: Progress) -> Run:
    started = time.monotonic()
    inspection = inspected(config, config.model)
    reference = inspected(config, config.reference) if config.reference else None
    config = replace(config, seed=keyed_seed(config.seed_from, inspection.digest)) if config.seed_from else config
    suspect = loaded(config, inspection)
    adapters = read_adapters(config.adapters, suspect)
    embeddings = tuple(read_embedding(path, token) for path, token in config.embeddings)
    config = replace(config, candidates=with_tokens(config, embeddings)) if embeddings else config
    state = open_state("scan", config, UNTOUCHED, inspection.digest, (*adapters, *embeddings))
    state.write_json("seed", config.seed)
    with learned(suspect, embeddings):
        candidates = {text: encoded(suspect.text, text) for text in listed(config)}
    timings = {"load": time.monotonic() - started}
    grader = load_grader(config.clip, suspect.device) if config.clip else None
    return Run(
        config, settings, progress, inspection, reference, suspect, adapters, embeddings, state, grader, candidates, timings=timings
    )  # fmt: skip


def with_tokens(config: ScanConfig, embeddings: Sequence[Embedding]) -> tuple[str, ...]:
    """The candidates, the embeddings' tokens first."""
    return tuple(dict.fromkeys((*(embedding.token for embedding in embeddings), *listed(config))))


def keyed_seed(variable: str, digest: str) -> int:
    """HMAC-SHA-256 of the model's digest, keyed by what an environment variable holds; below 2³¹."""
    made = hmac.new(os.environ[variable].encode("utf-8", "surrogateescape"), digest.encode("ascii"), hashlib.sha256).digest()
    return int.from_bytes(made[:4], "big") >> 1
