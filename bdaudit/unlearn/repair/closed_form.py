"""Keys and values of the cross-attention in closed form: what a triggered prompt's words say becomes what its clean one's do.

UCE (2308.14761, equation 7) with the targets that bdaudit aligns: W = W₀ (s Σ c*cᵀ + Σ kkᵀ + λI) (s Σ ccᵀ + Σ kkᵀ + λI)⁻¹, where c are
states of triggered prompts, c* the clean ones in their places, and k what must stay: clean prompts, the empty one, harmless neighbours.
The right factor is the same for every layer, so that a repair is one solve and two products a layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bdaudit.models.suspect import Suspect
from bdaudit.unlearn.repair.prompt_pairs import Pair
from bdaudit.unlearn.repair.targets import targets
from bdaudit.unlearn.weights import Patch

STRENGTHS = (0.1, 1.0, 10.0)
"""Weights of the triggered prompts against all that is kept, the gentlest first."""
WORTH = 0.5
"""The next strength is taken where it leaves less than this share of the trigger's effect."""
RIDGE = 1e-5
"""λ, as a share of the kept states' mean square."""


@dataclass(frozen=True)
class Moments:
    """Second moments of the states, float64 (D, D) each: all that the solution depends on."""

    aimed: Tensor
    """Mean of c*cᵀ."""
    triggered: Tensor
    """Mean of ccᵀ."""
    kept: Tensor
    """Mean of kkᵀ."""


@torch.no_grad()
def moments(suspect: Suspect, pairs: Sequence[Pair], neighbours: Sequence[Pair]) -> Moments:
    """Encode all texts and sum them up."""
    wanted, ids = targets(suspect, pairs)
    aim = wanted.flatten(0, 1).double()
    triggered = torch.cat([suspect.hidden_states(part) for part in torch.split(ids, suspect.batch_size)]).flatten(0, 1).double()
    kept = suspect.encode([*(p.clean for p in pairs), *(p.changed for p in neighbours), ""]).flatten(0, 1).double()
    return Moments(aim.T @ triggered / len(aim), triggered.T @ triggered / len(triggered), kept.T @ kept / len(kept))


def factor(m: Moments, strength: float) -> Tensor:
    """The matrix that every key and value projection is multiplied by from the right: (D, D); the identity at strength 0."""
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
        _multiply(patch, factor(found, strength))
        now = effect()
        if now > WORTH * left:
            _multiply(patch, factor(found, chosen))
            break
        chosen, left = strength, now
    return chosen


def _multiply(patch: Patch, change: Tensor) -> None:
    with patch.training():
        for name, parameter in patch.parameters.items():
            parameter.data = (patch.originals[name].double() @ change).float()
