"""Verify's pictures as data, and what draws them in a worker: the same function, of the same shots, as in the run itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bdaudit.measure.canary import Counted
from bdaudit.models.sample import sample
from bdaudit.models.suspect import Suspect
from bdaudit.workers.arrays import Array
from bdaudit.workers.wire import fitted


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """How a picture is drawn."""

    steps: int
    guidance_scale: float


@dataclass(frozen=True, kw_only=True)
class PicturesTask:
    """Some shots, which share batches."""

    texts: tuple[str, ...]
    seeds: tuple[int, ...]


class Bench(Counted):
    """Verify's side of a worker."""

    def __init__(self, suspect: Suspect, settings: dict[str, Any]) -> None:
        super().__init__(suspect)
        self._settings = fitted(settings, BenchSettings, "the run")

    def done(self, task: Any) -> Any:
        """Pictures (N, 3, H, W) in 0–1 of one task, an ``Array``.

        Raises:
            BdauditError: no task of ours, or what the drawing raises.
        """
        made, how = fitted(task, PicturesTask, "the run"), self._settings
        return Array.of(sample(self._suspect, made.texts, made.seeds, steps=how.steps, guidance_scale=how.guidance_scale))
