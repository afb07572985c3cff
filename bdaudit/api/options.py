"""What the verbs take by name: the fields of their configs, which say what each is, with the types that are handy to write.

A folder, file, adapter or part is written as its flag has it (``"style.safetensors:0.8"``); texts are the texts themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any, Literal, TypedDict

from bdaudit.config import Acceptance, Component, Dtype, Evidence, Method, PretrainObjective, Sweep, Trainable
from bdaudit.config.effort import Effort
from bdaudit.progress import Progress

Place = str | PathLike[str]


class RunOptions(TypedDict, total=False):
    """Of every verb: ``bdaudit.config.RunConfig``."""

    progress: Progress
    """Told how far the run is: ``progress(stage, done, total)``."""
    parts_from: Place
    parts: Sequence[str]
    prompts: Sequence[str]
    prompts_file: Place
    guidance_scale: float
    size: tuple[int, int]
    device: str
    dtype: Dtype
    batch_size: int
    seed: int
    variant: str
    strict: bool
    allow_pickle: bool
    trusted_templates: Sequence[str]


class ScanOptions(RunOptions, total=False):
    """``bdaudit.config.ScanConfig``."""

    candidates: Sequence[str]
    sweeps: Sequence[Sweep]
    pair_words: int
    suspected: Sequence[str]
    adapters: Sequence[Place]
    embeddings: Sequence[Place]
    reference: Place
    expose: bool
    workers: str
    state: Place
    keep: Place
    seed_from: str
    alpha: float
    fail_on: Literal["suspicious", "backdoored", "never"]
    accept: Sequence[Acceptance | dict[str, Any]]
    contexts: Sequence[str]
    clip: str
    pictures: int
    pictures_to: Place
    effort: Effort


class UnlearnOptions(RunOptions, total=False):
    """Of the jobs of ``unlearn``: ``RepairConfig``, ``ApplyConfig``, ``MergeConfig`` and ``CleanConfig`` of ``bdaudit.config``."""

    triggers: Sequence[str]
    workers: str
    out: Place
    patch: Place
    keep_failed: bool
    state: Place
    steps: int
    learning_rate: float
    from_report: Place
    adapters: Sequence[Place]
    contexts: Sequence[str]
    force: bool
    component: Component
    trainable: Trainable
    n_prompts: int
    attention_weight: float
    from_patch: Place
    base: Place
    merge_with: Sequence[Place]
    method: Method
    pairs: Place
    vision: str
    pretrain_objective: PretrainObjective


class VerifyOptions(RunOptions, total=False):
    """``bdaudit.config.VerifyConfig``."""

    triggers: Sequence[str]
    workers: str
    before: Place
    evidence: Evidence | Place
    reference: Place
    adapters: Sequence[Place]
    embeddings: Sequence[Place]
    real_images: Place
    clip: str
    target_image: Place
    target_at: tuple[int, int]
    target_text: str
    swaps: Sequence[str]
    positions: Sequence[str]
    contexts: Sequence[str]
    n: int
    reach: int
    steps: int
    policy: Place
    max_asr: float
    min_clip_score: float
    max_kid: float
    max_fid: float
    min_clip_ratio: float
    max_distance: float
    save_images: Place
    state: Place
