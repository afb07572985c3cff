"""A scan's blocks as data, and what measures them in a worker: the same functions, on the same draws, as in the run itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from bdaudit.measure.draws import Draws, DrawsOf, draws_like, make_draws
from bdaudit.measure.paths import Paths, make_paths, path_effects
from bdaudit.measure.text_effects import text_effects
from bdaudit.models.suspect import Suspect
from bdaudit.scan.sweep.recovery import chosen, search_draws, search_seed
from bdaudit.scan.sweep.screen import screened
from bdaudit.scan.sweep.swept_texts import PAIRINGS
from bdaudit.scan.sweep.two_part import Interactions
from bdaudit.scan.tasks import KINDS, ChoicesTask, CrowdsTask, PathsTask, ScreenTask, Task, TextsTask
from bdaudit.workers.wire import fitted

CANARY = ("dog", "a small boat", "x9q")
"""Harmless texts that every worker measures, and the run itself."""


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """What the draws follow from."""

    first: tuple[str, ...]
    """The prompts that the first draws are of."""
    pool: tuple[str, ...]
    """Those that draws in a context are of."""
    draws: int
    soon: int
    """Draws that every text gets."""
    guidance_scale: float
    seed: int
    pair_words: int


def canary(suspect: Suspect, draws: Draws) -> tuple[float, ...]:
    """Figures that tell whether two models are one, and two machines alike: of three texts on every draw."""
    effects = text_effects(suspect, draws, CANARY, attention=False)
    return tuple(value for effect in effects for value in (*effect.shift, *effect.level, effect.common))


class Bench:
    """A scan's side of a worker."""

    def __init__(self, suspect: Suspect, settings: dict[str, Any]) -> None:
        self._suspect, self._settings = suspect, fitted(settings, BenchSettings, "the run")
        of = self._settings
        self._draws = {DrawsOf(): make_draws(suspect, of.first, of.draws, of.guidance_scale, of.seed, of.soon)}
        self._crowds: dict[tuple[str, DrawsOf], Interactions] = {}
        self._paths: dict[tuple[DrawsOf, int], Paths] = {}

    @property
    def passes(self) -> int:
        """Forward passes so far, those for draws left out: the run makes its own."""
        return self._suspect.forward_passes

    def canary(self) -> tuple[float, ...]:
        """Of the first draws."""
        return canary(self._suspect, self._draws[DrawsOf()])

    def done(self, task: Any) -> Any:
        """One block.

        Raises:
            BdauditError: no task of ours, or what its measurement raises.
        """
        made: Task = fitted(task, KINDS.get(task.get("kind") if isinstance(task, dict) else None, ScreenTask), "the run")
        draws = self._of(made.draws)
        if isinstance(made, TextsTask):
            return text_effects(self._suspect, draws, made.texts, attention=made.attention)
        if isinstance(made, PathsTask):
            return path_effects(self._suspect, self._along(made.draws, made.steps), made.texts)
        if isinstance(made, ChoicesTask):
            return chosen(self._suspect, draws, made.slots, made.starts, made.cap, search_seed(self._settings.seed))
        if isinstance(made, CrowdsTask):
            return self._interactions(made)(made.crowds).tolist()
        return screened(self._suspect, draws, made.probes).tolist()

    def _interactions(self, task: CrowdsTask) -> Interactions:
        key = task.pairing, task.draws
        if key not in self._crowds:
            pairing = PAIRINGS[task.pairing](self._suspect.tokenizer, self._settings.pair_words)
            self._crowds = {key: Interactions(self._suspect, self._of(task.draws), pairing)}
        return self._crowds[key]

    def _of(self, of: DrawsOf) -> Draws:
        """Made once, and not counted."""
        if of not in self._draws:
            before = self._suspect.forward_passes
            first, settings = self._draws[DrawsOf()], self._settings
            if of.rows is not None:
                self._draws[of] = self._of(replace(of, rows=None)).at(of.rows)
            elif of.search:
                self._draws[of] = search_draws(self._suspect, first.prompts, settings.pool, settings.guidance_scale, settings.seed)
            else:
                assert of.like is not None
                self._draws[of] = draws_like(self._suspect, first, of.like, of.n, settings.seed)
            self._suspect.forward_passes = before
        return self._draws[of]

    def _along(self, of: DrawsOf, steps: int) -> Paths:
        if (of, steps) not in self._paths:
            before = self._suspect.forward_passes
            self._paths[of, steps] = make_paths(self._suspect, self._of(of), steps, self._settings.seed)
            self._suspect.forward_passes = before
        return self._paths[of, steps]
