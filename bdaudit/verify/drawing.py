"""One model's pictures, drawn as they are asked for; its weights are loaded at the first that was not kept."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Protocol

from bdaudit.models.suspect import Suspect
from bdaudit.progress import Progress
from bdaudit.records import NotMeasured
from bdaudit.verify.gallery import Pair, Shot
from bdaudit.verify.grader import Grader
from bdaudit.verify.model import Model


class Stages(Protocol):
    """What times a run's stages and hears how far they are."""

    @property
    def progress(self) -> Progress:
        """Hears how far a stage is."""

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Time a block."""


class Drawing:
    """A model with its gallery."""

    def __init__(self, run: Stages, model: Model, grader: Grader | NotMeasured, state: Path | None, stage: str) -> None:
        self.model = model
        self.gallery = model.gallery(grader, state)
        self._run, self._stage = run, stage
        self._suspect: Suspect | None = None

    def add(self, shots: Sequence[Shot], pairs: Sequence[Pair] = ()) -> None:
        """Draw what the gallery has not, and the trigger's attention in ``pairs``."""
        with self._run.stage(self._stage):
            missing, unseen = self.gallery.recall(shots), self.gallery.recall_maps(pairs)
        if not missing and not unseen:
            return
        if self._suspect is None:
            with self._run.stage("load"):
                self._suspect = self.model.load()
        with self._run.stage(self._stage):
            self.model.draw(self._suspect, self.gallery, missing, partial(self._run.progress, self._stage))
            if unseen:
                self.model.look(self._suspect, self.gallery, list(unseen))

    def leave(self) -> None:
        """Let the weights go; the pictures stay."""
        self._suspect = None
