"""The vision tower that ``--vision`` names, and whether it belongs to the suspect's text encoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bdaudit.errors import InconclusiveError, UsageError
from bdaudit.measure.open_clip_model import Preparation, load_open_clip
from bdaudit.models.suspect import Suspect
from bdaudit.records import Estimate, NotMeasured
from bdaudit.unlearn.clean.towers import WAYS, Towers, Vision

LEAST = 8 / WAYS
"""What a matching tower's retrieval must reach at its interval's lower end: eight times chance."""


def load_vision(name: str, suspect: Suspect) -> tuple[Vision, Preparation, Tensor]:
    """The tower on the suspect's device, its preprocessing, and the logarithm of its scale, ().

    Raises:
        UsageError, RefusedError, BdauditError: as the grader's loading does; or its projection does not fit the suspect's states.
        InconclusiveError: its weights are not on this machine.
    """
    found = load_open_clip(name, "--vision")
    if isinstance(found, NotMeasured):
        raise InconclusiveError(f"--vision: {found.reason}")
    projection, width = _projection(found.model), int(suspect.text.main.encoder.config.hidden_size)
    if projection is None or projection.shape[0] != width:
        got = "none" if projection is None else f"one from {projection.shape[0]} numbers"
        said = f"--vision {name} has {got} for a text projection; the suspect's text encoder gives {width}"
        raise UsageError(f"{said}: name the CLIP that it was taken from")
    prepare = Preparation(f"--vision {name}", found.model.visual.preprocess_cfg)
    visual = found.model.visual.to(suspect.device).eval().requires_grad_(False)
    parameter = nn.Parameter(projection.detach().float().to(suspect.device), requires_grad=False)
    mean, std = prepare.mean.to(suspect.device), prepare.std.to(suspect.device)
    return Vision(visual, parameter, mean, std), prepare, found.model.logit_scale.detach().float().to(suspect.device)


def _projection(model: Any) -> Tensor | None:
    """(W, D): open_clip keeps it at the model or in its text tower, as a matrix or as a linear layer."""
    held = getattr(model, "text_projection", None)
    held = getattr(getattr(model, "text", None), "text_projection", None) if held is None else held
    if isinstance(held, nn.Linear):
        return held.weight.T if held.bias is None else None
    return held if isinstance(held, torch.Tensor) else None


def check_belongs(name: str, accuracy: Estimate) -> None:
    """Refuse a tower that does not see in the pictures what the suspect reads in their captions.

    Raises:
        UsageError: retrieval of the held-out pairs is near chance.
    """
    if accuracy.low < LEAST:
        said = f"--vision {name}: a picture's own caption is the nearest of {WAYS} in {accuracy.value:.1%} of {accuracy.n} pairs"
        wanted = f"expected {LEAST:.0%} at the interval's lower end ({accuracy.low:.1%})"
        raise UsageError(f"{said}; {wanted}: it is not the CLIP that the suspect's text encoder was taken from, or the captions do not fit")


def towers_of(suspect: Suspect, vision: Vision | None, log_scale: Tensor | None) -> Towers:
    """The suspect's text encoder with ``vision`` beside it, if there is one."""
    towers = Towers(suspect.text.main.encoder, int(suspect.tokenizer.eos_token_id), vision)
    towers.log_scale = nn.Parameter((towers.log_scale.detach() if log_scale is None else log_scale).to(suspect.device), requires_grad=False)
    return towers
