"""A scan's workers: started where ``--workers`` asks for more than this process, told what the run is, ended with the block."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from bdaudit.config import ScanConfig
from bdaudit.config.effort import EFFORTS
from bdaudit.measure.envelope import versions
from bdaudit.scan.bench import BenchSettings, canary
from bdaudit.scan.context import ScanContext
from bdaudit.untrusted.inspect import Inspection
from bdaudit.workers.crew import Crew
from bdaudit.workers.ray_workers import started, threads_of
from bdaudit.workers.wire import Hello, ModelAsked, Setup, packed


@dataclass(frozen=True)
class Prompts:
    """What a scan's draws are made of."""

    first: Sequence[str]
    """Those that the first draws are of."""
    pool: Sequence[str]
    """Those that draws in a context are of."""


@contextmanager
def crew_of(
    config: ScanConfig, context: ScanContext, inspection: Inspection, added: Sequence[str], prompts: Prompts
) -> Iterator[ScanContext]:
    """The context with workers in it; as it is for one process, which is this. ``added`` has the keys of adapters and embeddings.

    Raises:
        UsageError: Ray is not installed, or ``auto`` outside a cluster.
        BdauditError: Ray does not come up, or has no room.
    """
    if config.workers == "1":
        yield context
        return
    count = None if config.workers == "auto" else int(config.workers)
    with started(count, gpu=context.suspect.device.type == "cuda") as (carrier, size):
        carrier.setup = packed(_setup(config, context, prompts, threads_of(size)))
        before = context.suspect.forward_passes
        crew = Crew(carrier, size, _own(context, inspection, added))
        context.suspect.forward_passes = before  # the canary is no part of the scan
        try:
            yield replace(context, crew=crew)
        finally:
            crew.close()


def _setup(config: ScanConfig, context: ScanContext, prompts: Prompts, threads: int) -> Setup:
    suspect = context.suspect
    kind: dict[str, Any] = {
        "device": suspect.device.type,
        "dtype": str(suspect.dtype).removeprefix("torch."),
        "batch_size": suspect.batch_size,
    }
    settings = BenchSettings(
        first=tuple(prompts.first),
        pool=tuple(prompts.pool),
        draws=EFFORTS[config.effort].draws,
        guidance_scale=config.guidance,
        seed=context.seed,
        pair_words=config.pair_words,
    )
    return Setup(bench="scan", model=replace(ModelAsked.of(config), **kind), settings=asdict(settings), threads=threads)


def _own(context: ScanContext, inspection: Inspection, added: Sequence[str]) -> Hello:
    """What a worker must say of itself, but for its name."""
    suspect = context.suspect
    return Hello(
        name=f"process {os.getpid()} on {platform.node()}",
        digest=inspection.digest,
        tensors=inspection.tensors.exact if inspection.tensors else "",
        added=tuple(added),
        versions=versions(),
        device=suspect.device.type,
        dtype=str(suspect.dtype),
        canary=canary(suspect, context.draws),
    )
