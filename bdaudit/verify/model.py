"""A model under audit: inspected and its tokenizer read at once, its weights loaded at the first picture that was not kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path

from bdaudit.config import VerifyConfig
from bdaudit.measure.grader import Grader
from bdaudit.measure.opening import inspected, loaded
from bdaudit.models.device import choose_device, choose_dtype
from bdaudit.models.embeddings import grown, learn, read_embedding
from bdaudit.models.lora import inspect_adapter, merge, read_adapters
from bdaudit.models.sample import sample
from bdaudit.models.suspect import Suspect
from bdaudit.models.tokenizer import read_tokenizer
from bdaudit.models.tokens import Tokenizer
from bdaudit.progress import Progress
from bdaudit.records import NotMeasured
from bdaudit.untrusted.inspect import verify_unchanged
from bdaudit.untrusted.layouts.autoencoder import drawn
from bdaudit.verify.attention_maps import trigger_attention
from bdaudit.verify.gallery import Gallery, Pair, Shot

Stage = Callable[[str], AbstractContextManager[None]]
"""Times a block of the run, by name."""


class Model:
    """One of the models of a run, and its pictures, whose ``device``, ``dtype`` and ``batch_size`` it has."""

    def __init__(
        self, config: VerifyConfig, path: Path, drawing: str, grader: Grader | NotMeasured, state: Path | None, role: str = ""
    ) -> None:
        """Inspect ``path`` and read its tokenizer; the gallery is empty, and finds what ``state`` has. ``drawing`` names the stage.

        ``role`` says which of the run's models it is (before, reference; empty for the audited one), and so which adapters are its own.

        Raises:
            BdauditError: as ``inspect`` does; or the tokenizer is damaged.
        """
        self.inspection = inspected(config, path)
        self.device = choose_device(config.device)
        self.dtype = choose_dtype(config.dtype, self.device)
        self.batch_size = config.batch_size
        self.adapters = tuple(inspect_adapter(path, scale, self.inspection.components) for path, scale in config.adapters_of(role))
        self.embeddings = tuple(read_embedding(path, token) for path, token in config.embeddings)
        self.tokenizer = self._read_tokenizer()
        self._config, self._drawing, self._role = config, drawing, role
        self._suspect: Suspect | None = None
        sampler = (config.steps, config.guidance_scale, self.device.type, self.dtype)
        added = (*(each.key for each in self.adapters), *(each.key for each in self.embeddings))
        made_by = (self.inspection.digest, self.inspection.latents, *sampler, *added)
        self.gallery = Gallery(None if isinstance(grader, NotMeasured) else grader, state, made_by)

    @property
    def picture_size(self) -> tuple[int, int]:
        """Height and width in pixels of what it draws."""
        return drawn(self.inspection.settings, self.inspection.latents)

    def _read_tokenizer(self) -> Tokenizer:
        seen = self.inspection
        tokenizer = read_tokenizer(seen.layout, seen.components, seen.sources, seen.settings)
        verify_unchanged(seen)
        return grown(tokenizer, self.embeddings) if self.embeddings else tokenizer

    def add(self, shots: Sequence[Shot], pairs: Sequence[Pair], stage: Stage, progress: Progress) -> None:
        """Draw what the gallery has not, and where the trigger's tokens look in ``pairs``.

        Raises:
            BdauditError: the weights cannot be loaded.
        """
        with stage(self._drawing):
            missing, unseen = self.gallery.recall(shots), self.gallery.recall_maps(pairs)
        if not missing and not unseen:
            return
        if self._suspect is None:
            with stage("load"):
                self._suspect = loaded(replace(self._config, batch_size=self.batch_size), self.inspection)
                merge(self._suspect, read_adapters(self._config.adapters_of(self._role), self._suspect))
                learn(self._suspect, self.embeddings)
        suspect, steps, guidance_scale = self._suspect, self._config.steps, self._config.guidance
        with stage(self._drawing):
            draw = partial(sample, suspect, steps=steps, guidance_scale=guidance_scale)
            self.gallery.add(missing, draw, suspect.batch_size, partial(progress, self._drawing))
            self.batch_size = suspect.batch_size  # a GPU that runs out of memory shrinks it on the way
            if unseen:
                self.gallery.add_maps(unseen, trigger_attention(suspect, unseen, steps, guidance_scale))

    def leave(self) -> None:
        """Let the weights go; the pictures stay."""
        self._suspect = None
