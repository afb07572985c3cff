"""The layers through which a text enters in closed form: what a triggered prompt's words say becomes what its clean one's do.

UCE (2308.14761, equation 7) with the targets that bdaudit aligns: W = W₀ (s Σ c*cᵀ + Σ kkᵀ + λI) (s Σ ccᵀ + Σ kkᵀ + λI)⁻¹, where c are
states of triggered prompts, c* the clean ones in their places, and k what must stay: clean prompts, the empty one, harmless neighbours.
The right factor is the same for every layer that takes in the same, so that a repair is one solve and a product a layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bdaudit.models.conditioning import Conditioning
from bdaudit.models.denoiser import Denoiser, Heard
from bdaudit.models.suspect import Suspect
from bdaudit.unlearn.repair.prompt_pairs import Pair, targets
from bdaudit.unlearn.weights import Patch

STRENGTHS = (0.1, 1.0, 10.0)
"""Weights of the triggered prompts against all that is kept, the gentlest first."""
WORTH = 0.5
"""The next strength is taken where it leaves less than this share of the trigger's effect."""
TOGETHER, _ROWS = 64, 1 << 16
"""Texts whose states go through what lies before an entrance at a time, and rows that are summed up at a time."""
RIDGE = 1e-5
"""λ, as a share of the kept states' mean square."""


@dataclass(frozen=True)
class Moments:
    """Second moments of what a layer takes in, float64 (D, D) each: all that the solution depends on."""

    aimed: Tensor
    """Mean of c*cᵀ."""
    triggered: Tensor
    """Mean of ccᵀ."""
    kept: Tensor
    """Mean of kkᵀ."""


@torch.no_grad()
def moments(suspect: Suspect, pairs: Sequence[Pair], neighbours: Sequence[Pair]) -> dict[Heard, Moments]:
    """Encode all texts and sum up each kind of what the layers take in."""
    wanted, ids = targets(suspect, pairs)
    triggered = suspect.encode_ids(ids)
    kept = suspect.encode([*(p.clean for p in pairs), *(p.changed for p in neighbours), ""])
    kinds = dict.fromkeys(suspect.denoiser.entrances().values())
    return {kind: _moments(*(rows(suspect.denoiser, heard, kind) for heard in (wanted, triggered, kept))) for kind in kinds}


def rows(denoiser: Denoiser, heard: Conditioning, kind: Heard) -> Tensor:
    """What a layer takes in, one vector a row: (N, D). States that the denoiser does not look at are left out."""
    if kind == "pooled":
        assert heard.pooled is not None
        return heard.pooled
    entering = torch.cat([denoiser.entering(part) for part in heard.split(TOGETHER)])
    states = entering if heard.mask is None else entering[heard.mask.bool()]
    return states.reshape(-1, states.shape[-1])


def _moments(aim: Tensor, triggered: Tensor, kept: Tensor) -> Moments:
    return Moments(_product(aim, triggered), _product(triggered, triggered), _product(kept, kept))


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Mean over rows of the outer products, float64, a few rows at a time: (N, D) twice → (D, D)."""
    parts = zip(torch.split(a, _ROWS), torch.split(b, _ROWS), strict=True)
    total: Tensor = sum((one.double().T @ other.double() for one, other in parts), torch.zeros((), dtype=torch.float64, device=a.device))
    return total / len(a)


def factor(m: Moments, strength: float) -> Tensor:
    """The matrix that every layer is multiplied by from the right: (D, D); the identity at strength 0."""
    eye = torch.eye(len(m.kept), dtype=m.kept.dtype, device=m.kept.device)
    held = m.kept + RIDGE * m.kept.diagonal().mean() * eye
    solved: Tensor = torch.linalg.solve(strength * m.triggered + held, strength * m.aimed + held, left=False)
    return solved


@torch.no_grad()
def solve(suspect: Suspect, patch: Patch, pairs: Sequence[Pair], neighbours: Sequence[Pair], effect: Callable[[], float]) -> float:
    """Repair ``patch`` in place, and the strength it took: the gentlest beyond which ``effect``, the trigger's, hardly falls."""
    found = moments(suspect, pairs, neighbours)
    chosen, left = 0.0, math.inf
    for strength in STRENGTHS:
        _multiply(patch, suspect.denoiser, found, strength)
        now = effect()
        if now > WORTH * left:
            _multiply(patch, suspect.denoiser, found, chosen)
            break
        chosen, left = strength, now
    return chosen


def _multiply(patch: Patch, denoiser: Denoiser, found: Mapping[Heard, Moments], strength: float) -> None:
    changes = {kind: factor(moments, strength) for kind, moments in found.items()}
    with patch.training():
        for name, kind in denoiser.entrances().items():
            held = f"{denoiser.name}.{name}"
            own, besides = torch.tensor_split(patch.originals[held].double(), [len(changes[kind])], dim=1)
            patch.parameters[held].data = torch.cat([own @ changes[kind], besides], dim=1).float()
