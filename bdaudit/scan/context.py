"""What every step that runs the model is given: the model, the draws that all texts share, where results go, whom to tell."""

from __future__ import annotations

from dataclasses import dataclass

from bdaudit.kept_state import State
from bdaudit.measure.draws import Draws
from bdaudit.models.suspect import Suspect
from bdaudit.progress import Progress
from bdaudit.workers.crew import Crew


@dataclass(frozen=True)
class ScanContext:
    """One model on one set of draws."""

    suspect: Suspect
    draws: Draws
    state: State
    progress: Progress
    seed: int
    crew: Crew | None = None
    """Workers that hold the same model, where there are any; None while its weights are others."""
