"""What is trained: which tensors of its component each trainable set holds."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from bdaudit.config import TEXT_ENCODER
from bdaudit.models import patch
from bdaudit.models.suspect import Suspect

CLOSED_FORM = "closed-form"
"""The set that is solved for: the layers through which alone a text enters the denoiser."""


class Patch(patch.Patch):
    """The tensors of one trainable set beside their originals, which are the teacher's; each name begins with its folder's."""

    def __init__(self, suspect: Suspect, trainable: str) -> None:
        """``trainable`` is ``CLOSED_FORM`` or another set of the denoiser, ``TEXT_ENCODER``, which is all that reads a prompt, or one
        reader's folder: each of these whole."""
        chosen = _chosen(suspect, trainable)
        super().__init__(nn.ModuleDict(suspect.heeding), lambda name: chosen(*name.split(".", 1)))


def _chosen(suspect: Suspect, trainable: str) -> Callable[[str, str], bool]:
    """Of a tensor's folder and its name there."""
    if trainable == TEXT_ENCODER:
        return lambda folder, name: folder in suspect.text.modules
    if trainable in suspect.text.modules:
        return lambda folder, name: folder == trainable
    sets = {CLOSED_FORM: suspect.denoiser.entrances().__contains__, **suspect.denoiser.trainable}
    return lambda folder, name: folder == suspect.denoiser.name and sets[trainable](name)
