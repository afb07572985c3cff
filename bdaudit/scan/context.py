"""What every step that runs the model is given: the model, the trajectories that all texts share, where results go, whom to tell."""

from __future__ import annotations

from dataclasses import dataclass

from bdaudit.kept_state import State
from bdaudit.measure.probe import Stage
from bdaudit.models.suspect import Suspect
from bdaudit.progress import Progress


@dataclass(frozen=True)
class ScanContext:
    """One model on one stage."""

    suspect: Suspect
    stage: Stage
    state: State
    progress: Progress
    seed: int
