"""What is trained: which tensors of its component each trainable set holds."""

from __future__ import annotations

from bdaudit.models import patch
from bdaudit.models.denoiser import Chosen
from bdaudit.models.suspect import Suspect

CLOSED_FORM = "closed-form"
"""The set that is solved for: the layers through which alone a text enters the denoiser."""


class Patch(patch.Patch):
    """The tensors of one trainable set beside their originals, which are the teacher's."""

    def __init__(self, suspect: Suspect, folder: str, trainable: str) -> None:
        """``folder`` names a module of ``suspect``; a text encoder is trained whole."""
        super().__init__(suspect.modules[folder], _chosen(suspect, folder, trainable))


def _chosen(suspect: Suspect, folder: str, trainable: str) -> Chosen:
    if folder != suspect.denoiser.name:
        return lambda name: True
    if trainable == CLOSED_FORM:
        return suspect.denoiser.entrances().__contains__
    return suspect.denoiser.trainable[trainable]
