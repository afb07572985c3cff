"""A scan's workers: told what the run is, and what its draws are made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial

from bdaudit.config import ScanConfig
from bdaudit.config.effort import EFFORTS
from bdaudit.scan.bench import BenchSettings, canary
from bdaudit.scan.context import ScanContext
from bdaudit.untrusted.inspect import Inspection
from bdaudit.workers.hired import Hired
from bdaudit.workers.wire import ModelAsked


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
    """The context with workers in it, where there are to be any. ``added`` has the keys of adapters and embeddings; raises as ``Hired``."""
    settings = BenchSettings(
        first=tuple(prompts.first),
        pool=tuple(prompts.pool),
        draws=EFFORTS[config.effort].draws,
        soon=EFFORTS[config.effort].first,
        guidance_scale=config.guidance,
        seed=context.seed,
        pair_words=config.pair_words,
    )
    suspect = context.suspect
    hired = Hired("scan", asdict(settings), ModelAsked.of(config), suspect, inspection, added, partial(canary, suspect, context.draws))
    with hired.crew(config.workers) as crew:
        yield replace(context, crew=crew)
