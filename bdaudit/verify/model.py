"""A model under audit: inspected and its tokenizer read at once, its weights loaded only where a picture is missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from bdaudit.config import VerifyConfig
from bdaudit.measure.opening import inspected, loaded
from bdaudit.models.device import choose_device, choose_dtype
from bdaudit.models.sample import sample
from bdaudit.models.suspect import Suspect
from bdaudit.models.tokenizer import read_tokenizer
from bdaudit.models.tokens import Tokenizer
from bdaudit.records import NotMeasured
from bdaudit.untrusted.inspect import verify_unchanged
from bdaudit.verify.attention_maps import trigger_attention
from bdaudit.verify.gallery import Gallery, Pair, Shot
from bdaudit.verify.grader import Grader


class Model:
    """One of the models of a run. ``device``, ``dtype`` and ``batch_size`` are those of its pictures."""

    def __init__(self, config: VerifyConfig, path: Path) -> None:
        """Inspect ``path`` and read its tokenizer.

        Raises:
            BdauditError: as ``inspect`` does; or the tokenizer is damaged.
        """
        self.inspection = inspected(config, path)
        self.device = choose_device(config.device)
        self.dtype = choose_dtype(config.dtype, self.device)
        self.batch_size = config.batch_size
        self.tokenizer = self._read_tokenizer()
        self._config = config

    def _read_tokenizer(self) -> Tokenizer:
        seen = self.inspection
        tokenizer = read_tokenizer(seen.path, seen.layout, seen.components, seen.loaded, seen.settings)
        verify_unchanged(seen)
        return tokenizer

    def gallery(self, grader: Grader | NotMeasured, state: Path | None) -> Gallery:
        """An empty gallery for this model's pictures, which finds those that ``state`` has."""
        config = self._config
        made_by = (self.inspection.digest, self.inspection.latents, config.steps, config.guidance_scale, self.device.type, self.dtype)
        return Gallery(None if isinstance(grader, NotMeasured) else grader, state, made_by)

    def load(self) -> Suspect:
        """The model with its weights.

        Raises:
            BdauditError: as ``models.load.load``.
        """
        return loaded(replace(self._config, batch_size=self.batch_size), self.inspection)

    def draw(self, suspect: Suspect, gallery: Gallery, shots: list[Shot], tick: Callable[[int, int], None]) -> None:
        """Add ``shots`` to ``gallery``; the batch size that they were drawn with is kept."""
        drawing = partial(sample, suspect, steps=self._config.steps, guidance_scale=self._config.guidance_scale)
        gallery.add(shots, drawing, suspect.batch_size, tick)
        self.batch_size = suspect.batch_size

    def look(self, suspect: Suspect, gallery: Gallery, pairs: list[Pair]) -> None:
        """Add to ``gallery`` where the trigger's tokens look in ``pairs``."""
        gallery.add_maps(pairs, trigger_attention(suspect, pairs, self._config.steps, self._config.guidance_scale))
