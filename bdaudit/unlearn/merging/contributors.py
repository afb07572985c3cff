"""The fine-tunes that are merged: each is opened like a suspect, held against the base, and kept as its difference from it.

Memory: the base, the model, and a float32 copy of every tensor that a contributor changed, on the CPU.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from bdaudit.config import RunConfig
from bdaudit.errors import UsageError
from bdaudit.measure.opening import inspected, loaded
from bdaudit.models.lora import read_adapter
from bdaudit.models.suspect import Suspect
from bdaudit.tensor_file import open_tensors
from bdaudit.unlearn.merging.blend import parameters_of
from bdaudit.unlearn.merging.closed_forms import Vector
from bdaudit.untrusted.inspect import Inspection
from bdaudit.untrusted.leftovers import ADAPTER
from bdaudit.untrusted.tree import shown

FAR = 1.0
"""Median relative distance of the weights from which on a model is none of the base's fine-tunes. UNets that were trained from
scratch lie 1.41 apart (two pairs; √2 is what chance gives), long fine-tunes of the fixtures 0.5, short ones under 0.3, by ``distances.py``
among the benches."""


@dataclass(frozen=True)
class Contributor:
    """One fine-tune, as what it adds to the base."""

    path: str
    sha256: str
    vector: Vector
    distance: float
    """The largest of the parts' medians over weights of their relative distance from the base's."""


def open_model(inspection: Inspection, config: RunConfig) -> Suspect:
    """In float32 whatever the device: a fine-tune's differences are smaller than what 16 bits can tell apart."""
    return loaded(replace(config, dtype="float32"), inspection)


def from_model(inspection: Inspection, model: Suspect, base: Suspect) -> Contributor:
    """A loaded fine-tune.

    Raises:
        UsageError: it is no fine-tune of ``base``.
    """
    where = shown(inspection.path)
    _check_alike(where, model, base)
    own, origin = parameters_of(model), parameters_of(base)
    vector = {name: own[name].detach().float().cpu() - origin[name].detach().float().cpu() for name in origin}
    distance = max(_check_near(where, part, model.modules[part], base.modules[part]) for part in base.modules)
    return Contributor(str(inspection.path), inspection.digest, _changed(vector), distance)


def open_contributor(path: Path, scale: float, base: Suspect, config: RunConfig) -> Contributor:
    """A further fine-tune, a directory, a checkpoint in one file, or a LoRA file for the base.

    Raises:
        UsageError: it is no fine-tune of ``base``, or a whole model with a scale.
        RefusedError, BdauditError, InconclusiveError: it cannot be opened safely, or at all.
    """
    if path.is_dir() or not _is_adapter(path):
        if scale != 1:
            raise UsageError(f"{shown(path)} is a whole model, and :{scale:g} is how much of a LoRA is merged; leave it out")
        inspection = inspected(config, path)
        return from_model(inspection, open_model(inspection, config), base)
    adapter = read_adapter(path, scale, base)
    vector = _changed({f"{component}.{name}": delta for (component, name), delta in adapter.deltas.items()})
    origin = parameters_of(base)
    relative = [_relative(origin[name].detach().cpu() + delta, origin[name].detach().cpu()) for name, delta in vector.items()]
    return Contributor(str(path), adapter.digest, vector, float(torch.tensor(relative or [0.0]).median()))


def _is_adapter(path: Path) -> bool:
    """Whether any tensor of the file is called like an adapter's."""
    with open_tensors(path, shown(path)) as file:
        return any(map(ADAPTER.search, file.header.tensors))


def _changed(vector: Vector) -> Vector:
    """Without tensors that are as in the base: an adapter may hold layers that nothing trained."""
    return {name: difference for name, difference in vector.items() if bool(difference.any())}


def _check_alike(where: str, model: Suspect, base: Suspect) -> None:
    """Architecture, vocabulary and noise schedule: without them a difference of weights means nothing."""
    if model.tokenizer.get_vocab() != base.tokenizer.get_vocab() or model.tokenizer.model_max_length != base.tokenizer.model_max_length:
        raise UsageError(f"{where} has another tokenizer than the base; name the model that it was fine-tuned from with --base")
    for part in base.modules:
        own, origin = ({n: tuple(t.shape) for n, t in m.modules[part].state_dict().items()} for m in (model, base))
        unlike = [n for n in {**origin, **own} if own.get(n) != origin.get(n)]
        if unlike:
            said = f"{where}: {part} has other tensors than the base's, {unlike[0]} first ({len(unlike)} in all)"
            raise UsageError(f"{said}; only fine-tunes of one base can be merged")
    if not model.schedule.same(base.schedule):
        raise UsageError(f"{where} has another noise schedule or prediction type than the base; only fine-tunes of one base can be merged")


def _check_near(where: str, part: str, model: torch.nn.Module, base: torch.nn.Module) -> float:
    """How far apart they are; the VAE is not merged, but its latents must mean the same."""
    found = apart(model, base)
    if found > FAR:
        said = f"{where}: half of the {part}'s weights are {found:.2f} of their size or more away from the base's"
        raise UsageError(f"{said}, a fine-tune's less than {FAR:g}; name the model that it was fine-tuned from with --base")
    return found


def apart(model: torch.nn.Module, base: torch.nn.Module) -> float:
    """The median over weights of two and more dimensions of their relative distance: 0 for the same model, √2 for unrelated ones."""
    pairs = zip(model.parameters(), base.parameters(), strict=True)
    return float(torch.tensor([_relative(own.detach(), origin.detach()) for own, origin in pairs if origin.dim() > 1]).median())


def _relative(own: Tensor, origin: Tensor) -> float:
    """‖a − b‖ over the root mean square of ‖a‖ and ‖b‖: √2 for weights that have nothing to do with each other, whatever their sizes."""
    size = (own.float().square().sum() + origin.float().square().sum()) / 2
    return float((own.float() - origin.float()).norm() / size.sqrt().clamp_min(1e-12))
