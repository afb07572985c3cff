"""The pictures of a repair's check as data, and what draws them in a worker: with the repaired weights in place, or those from before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bdaudit.errors import BdauditError
from bdaudit.measure.canary import Counted
from bdaudit.measure.final_latents import final_latents
from bdaudit.models.suspect import Suspect
from bdaudit.tensor_file import open_tensors
from bdaudit.workers.arrays import Array
from bdaudit.workers.wire import fitted

NOW, BEFORE = "now/", "before/"
"""How the names begin of tensors of the repaired model, and of the one before, in a file of weights."""


@dataclass(frozen=True, kw_only=True)
class LatentsTask:
    """Some pictures, which share batches."""

    texts: tuple[str, ...]
    seeds: tuple[int, ...]
    weights: Path
    """A safetensors file of what the repaired model and the one before have otherwise than the one that was opened."""
    sha256: str
    before: bool
    """Of the model from before the repair."""


class Bench(Counted):
    """A repair's side of a worker."""

    def __init__(self, suspect: Suspect, settings: dict[str, Any]) -> None:
        super().__init__(suspect)
        self._parameters = dict(nn.ModuleDict(suspect.heeding).named_parameters())
        self._opened: dict[str, Tensor] = {}
        """Of each tensor that was ever exchanged, the one that was opened."""
        self._sha256 = ""
        self._held: dict[str, Tensor] = {}

    def done(self, task: Any) -> Any:
        """Final latents (N, C·H·W) of one task, an ``Array``.

        Raises:
            BdauditError: no task of ours; the weights are not there, others than the run's, or none of this model; or a picture is NaN.
        """
        made = fitted(task, LatentsTask, "the run")
        if made.sha256 != self._sha256:
            self._held, self._sha256 = self._read(made.weights, made.sha256), made.sha256
        now, before = ({n.removeprefix(of): t for n, t in self._held.items() if n.startswith(of)} for of in (NOW, BEFORE))
        self._put(now | before if made.before else now)
        return Array.of(final_latents(self._suspect, made.texts, made.seeds))

    def _read(self, path: Path, sha256: str) -> dict[str, Tensor]:
        with open_tensors(path, str(path), error=BdauditError, follow=False) as file:
            tensors, digest = file.load()
        if digest != sha256:
            raise BdauditError(f"{path} has the SHA-256 {digest[:12]}, the run wrote {sha256[:12]}; every worker must see the same file")
        for name, tensor in tensors.items():
            own = self._parameters.get(name.removeprefix(NOW).removeprefix(BEFORE))
            if own is None or own.shape != tensor.shape or own.dtype != tensor.dtype or not bool(tensor.isfinite().all()):
                raise BdauditError(f"{path}: {name!a} is no tensor of this model")
        return {name: tensor.to(self._suspect.device) for name, tensor in tensors.items()}

    def _put(self, values: Mapping[str, Tensor]) -> None:
        """Have these tensors in place, and of all others those that were opened."""
        self._opened |= {name: self._parameters[name].data for name in values if name not in self._opened}
        for name, opened in self._opened.items():
            self._parameters[name].data = values.get(name, opened)
