"""A model under audit: inspected and its tokenizer read at once, its weights loaded at the first picture that was not kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from torch import Tensor

from bdaudit.config import VerifyConfig
from bdaudit.measure.canary import canary
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
from bdaudit.verify.bench import BenchSettings, PicturesTask
from bdaudit.verify.gallery import Block, Gallery, Pair, Shot, drawn_here
from bdaudit.workers.arrays import Array
from bdaudit.workers.blocks import Pace, answered, checked
from bdaudit.workers.crew import Crew
from bdaudit.workers.hired import Hired, Turns
from bdaudit.workers.wire import ModelAsked

TOGETHER = 16
"""Pictures of a block, at most."""
_PIXEL = 16
"""Bytes that a pixel takes on its way from a worker: three float32 numbers in base64."""
_MOST = 1 << 26
"""Bytes of a block's pictures there, so that those of eight workers fit into Ray's store."""
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
        self._path = path
        self._added = (*(each.key for each in self.adapters), *(each.key for each in self.embeddings))
        made_by = (self.inspection.digest, self.inspection.latents, *sampler, *self._added)
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

    def add(self, shots: Sequence[Shot], pairs: Sequence[Pair], stage: Stage, progress: Progress, turns: Turns | None = None) -> None:
        """Draw what the gallery has not, here or, with ``turns``, by as many workers as ``--workers`` says, and where the trigger's tokens
        look in ``pairs``.

        Raises:
            BdauditError: the weights cannot be loaded; or what workers raise.
        """
        with stage(self._drawing):
            blocks, unseen = self.gallery.recall(shots, self._together()), self.gallery.recall_maps(pairs)
        if not blocks and not unseen:
            return
        if self._suspect is None:
            with stage("load"):
                self._suspect = loaded(replace(self._config, batch_size=self.batch_size), self.inspection)
                merge(self._suspect, read_adapters(self._config.adapters_of(self._role), self._suspect))
                learn(self._suspect, self.embeddings)
        suspect, steps, guidance_scale = self._suspect, self._config.steps, self._config.guidance
        with stage(self._drawing):
            crew = turns.crew(self, self._crew) if turns and blocks else None
            if crew:
                self._share(crew, suspect, blocks, progress)
            else:
                draw = partial(sample, suspect, steps=steps, guidance_scale=guidance_scale)
                self.gallery.keep(blocks, drawn_here(blocks, draw), partial(progress, self._drawing))
            self.batch_size = suspect.batch_size  # a GPU that runs out of memory shrinks it on the way
            if unseen:
                self.gallery.add_maps(unseen, trigger_attention(suspect, unseen, steps, guidance_scale))

    def _together(self) -> int:
        """Pictures of a block: as many as share a batch well, and are quick to send."""
        height, width = self.picture_size
        return max(1, min(TOGETHER, self._config.batch_size, _MOST // (_PIXEL * height * width)))

    def _crew(self) -> AbstractContextManager[Crew | None]:
        """Workers with this very model."""
        assert self._suspect is not None
        config, suspect = self._config, self._suspect
        settings = BenchSettings(steps=config.steps, guidance_scale=config.guidance)
        asked = ModelAsked.of(config, self._path, config.adapters_of(self._role))
        hired = Hired("verify", asdict(settings), asked, suspect, self.inspection, self._added, partial(canary, suspect), together=1)
        return hired.crew(config.workers)

    def _share(self, crew: Crew, suspect: Suspect, blocks: Sequence[Block], progress: Progress) -> None:
        """The gallery's blocks, drawn by workers."""
        tasks = [PicturesTask(texts=tuple(s.text for s in block), seeds=tuple(s.seed for s in block)) for block in blocks]

        def drawn() -> Iterator[tuple[int, Tensor]]:
            for number, array, passes in answered(crew, enumerate(tasks), Array, lambda number: str(blocks[number][0])):
                suspect.forward_passes += passes
                yield number, checked(partial(_pictures, array, len(blocks[number])))

        pace = Pace(crew, progress, self._drawing, "pictures", self.gallery.lacking(blocks))
        self.gallery.keep(blocks, drawn(), lambda done, total: pace.at(done))

    def leave(self) -> None:
        """Let the weights go; the pictures stay."""
        self._suspect = None


def _pictures(array: Array, n: int) -> Tensor:
    """(N, 3, H, W) in 0–1; raises ``ValueError`` where they are none."""
    made = array.tensor((n, 3, None, None))
    if made.numel() == 0 or made.min() < 0 or made.max() > 1:
        raise ValueError("pictures that are none")
    return made
