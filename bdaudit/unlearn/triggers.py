"""What named triggers do to one denoising step, before and after: measured alike whatever the repair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bdaudit.errors import InconclusiveError
from bdaudit.measure.effect import Effect, measure
from bdaudit.measure.probe import Stage, build_stage
from bdaudit.models.suspect import Suspect
from bdaudit.models.tokens import Tokenizer, content_ids

PROMPTS = 8
TIMESTEPS = (0.9, 0.6, 0.3)
N_NULL = 30
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


def trigger_stage(suspect: Suspect, sampling: Sampling) -> Stage:
    """The clean trajectories that they are measured on, under the model as it stands."""
    return build_stage(suspect, sampling.prompts[:PROMPTS], TIMESTEPS, sampling.guidance_scale, sampling.seed)


def trigger_effects(suspect: Suspect, stage: Stage, triggers: Sequence[str], seed: int, n_null: int = 0) -> list[Effect]:
    """Each trigger's effect; no other trigger is among its ``n_null`` harmless texts (0 is the default's number)."""
    return measure(suspect, stage, triggers, n_null=n_null or N_NULL, seed=seed)
