"""Workers for a repair's check: told of the model before anything is changed, and of the repaired weights by a file that they all see."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from bdaudit.config import RepairConfig
from bdaudit.errors import BdauditError
from bdaudit.kept_state import State
from bdaudit.measure.canary import canary
from bdaudit.models.lora import Adapter, merged
from bdaudit.models.suspect import Suspect
from bdaudit.targets import whole
from bdaudit.unlearn.repair.bench import BEFORE, NOW, LatentsTask
from bdaudit.unlearn.repair.check import Draw, drawn_here, in_blocks
from bdaudit.unlearn.weights import Patch
from bdaudit.untrusted.inspect import Inspection
from bdaudit.untrusted.open_file import sha256
from bdaudit.workers.arrays import Array
from bdaudit.workers.blocks import answered, checked
from bdaudit.workers.crew import Crew
from bdaudit.workers.hired import Hired, Turns
from bdaudit.workers.wire import ModelAsked

FILE = "kept-weights.safetensors"
"""In the run's state, and gone with it."""


class CheckWorkers:
    """Draw a check's pictures here, or by as many workers as ``--workers`` says, which start with the first."""

    def __init__(self, config: RepairConfig, inspection: Inspection, suspect: Suspect, adapters: Sequence[Adapter], state: State) -> None:
        """``suspect`` has the adapters merged in, and nothing else is changed yet."""
        self._workers, self._suspect, self._state = config.workers, suspect, state
        self._of_adapters = tuple(f"{part}.{name}" for part, name in merged(adapters))
        figures = canary(suspect) if config.workers != "1" else ()
        keys = tuple(adapter.key for adapter in adapters)
        self._hired = Hired("unlearn", {}, ModelAsked.of(config), suspect, inspection, keys, lambda: figures, together=1)
        self._turns = Turns()
        self._files = ExitStack()

    @property
    def notes(self) -> tuple[str, ...]:
        """Who was dropped or lost, and why."""
        return tuple(self._turns.notes)

    @contextmanager
    def drawing(self, patch: Patch) -> Iterator[Draw]:
        """A block in which the weights of ``patch`` stay as they are."""
        crew = self._turns.crew(self, self._crew)
        yield self._shared(crew, patch) if crew else drawn_here(self._suspect, patch)

    def _crew(self) -> AbstractContextManager[Crew | None]:
        return self._hired.crew(self._workers)

    def _shared(self, crew: Crew, patch: Patch) -> Draw:
        path = self._folder() / FILE
        digest = self._written(path, patch)

        def draw(texts: Sequence[str], seeds: Sequence[int], before: bool) -> Tensor:
            blocks = in_blocks(texts, seeds)
            tasks = (LatentsTask(texts=t, seeds=s, weights=path.absolute(), sha256=digest, before=before) for t, s in blocks)
            found: dict[int, Tensor] = {}
            for number, array, passes in answered(crew, enumerate(tasks), Array, lambda number: blocks[number][0][0]):
                self._suspect.forward_passes += passes
                found[number] = checked(partial(array.tensor, (len(blocks[number][0]), self._numbers())))
            return torch.cat([found[number] for number in range(len(blocks))]).to(self._suspect.device)

        return draw

    def _numbers(self) -> int:
        channels, height, width = self._suspect.denoiser.latent_shape
        return channels * height * width

    def _folder(self) -> Path:
        """The state's, which exists by now; one of this machine where nothing is kept."""
        if self._state.folder is not None:
            return self._state.folder
        return Path(self._files.enter_context(tempfile.TemporaryDirectory(prefix="bdaudit-")))

    def _written(self, path: Path, patch: Patch) -> str:
        """Write what the model has otherwise than it was opened, now and from before; the file's SHA-256."""
        parameters = dict(nn.ModuleDict(self._suspect.heeding).named_parameters())
        now = {f"{NOW}{name}": parameters[name].data for name in (*patch.originals, *self._of_adapters)}
        every = now | {f"{BEFORE}{name}": tensor for name, tensor in patch.originals.items()}
        try:
            with whole(path) as partial:
                save_file({name: tensor.detach().cpu().clone().contiguous() for name, tensor in every.items()}, partial)
                return sha256(partial, str(path))
        except (OSError, SafetensorError) as error:
            raise BdauditError(f"cannot write {path} for the workers: {error}; give it room, or leave --workers out") from error

    def close(self) -> None:
        """End the workers."""
        self._turns.close()
        self._files.close()
