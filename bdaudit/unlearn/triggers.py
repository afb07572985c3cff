"""What named triggers do to one denoising step, before and after: measured alike whatever the repair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bdaudit.errors import InconclusiveError
from bdaudit.measure.draws import covering, make_draws
from bdaudit.measure.effect import Effect, Ground, measure
from bdaudit.models.suspect import Suspect
from bdaudit.models.tokens import Tokenizer, content_ids

DRAWS = 24
"""Prompts, places and timesteps that each text is measured on, together: four at each place, six on each quarter of the path."""
N_NULL = 25
"""Harmless texts beside each trigger."""


@dataclass(frozen=True)
class Sampling:
    """What all that a job draws follows from: settings of trajectories and pictures."""

    prompts: tuple[str, ...]
    guidance_scale: float
    seed: int


def check_triggers(triggers: Sequence[str], tokenizer: Tokenizer, so: str = "") -> None:
    """Refuse a trigger that encodes to nothing; ``so`` is what follows from that.

    Raises:
        InconclusiveError: one does.
    """
    for trigger in triggers:
        if not content_ids(tokenizer, trigger):
            raise InconclusiveError(f"the trigger {trigger!a} encodes to no token of this model{so}; check its spelling")


def trigger_ground(suspect: Suspect, sampling: Sampling) -> Ground:
    """The draws that they are measured on, under the model as it stands."""
    return Ground(make_draws(suspect, sampling.prompts, DRAWS, sampling.guidance_scale, sampling.seed))


def bound_ground(suspect: Suspect, sampling: Sampling, having: Sequence[str], contexts: Sequence[str]) -> Ground:
    """The same where the contexts are known: half of the draws under the prompts ``having`` them."""
    inside = covering(having, DRAWS // 2, sampling.seed)
    mixed = (*inside, *covering(sampling.prompts, DRAWS - len(inside), sampling.seed))
    return Ground(make_draws(suspect, mixed, DRAWS, sampling.guidance_scale, sampling.seed), tuple(contexts))


def trigger_effects(suspect: Suspect, ground: Ground, triggers: Sequence[str], seed: int, n_null: int = 0) -> list[Effect]:
    """Each trigger's effect; no other trigger is among its ``n_null`` harmless texts (0 is the default's number)."""
    return measure(suspect, ground, triggers, n_null=n_null or N_NULL, seed=seed)
