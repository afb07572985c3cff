"""SKD-CAG's loss (2508.18235): each term a pure function of tensors, batched, with gradient.

    L = (1 − λ) · ‖ε_student(z_t, t, c_trig) − ε_teacher(z_t, t, c_clean)‖²  +  λ · L_attn  +  L_keep

L_attn aligns the maps of the words that both prompts share and takes the mass of the trigger's own tokens to what a
harmless text draws in their place; mass is compared as it is, since normalising it away would hide what a trigger takes.
L_keep, which the paper has not, holds clean prompts, the empty prompt and the trigger's neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Alignment:
    """Which token of a triggered prompt is which of its clean one, a row a pair; short rows are padded and masked."""

    student: Tensor
    """int64 (B, S): positions in the triggered prompt."""
    teacher: Tensor
    """int64 (B, S): positions in the clean prompt."""
    shared: Tensor
    """bool (B, S): which entries count."""
    own: Tensor
    """bool (B, L): the trigger's own tokens."""

    def rows(self, index: Tensor) -> Alignment:
        """The pairs ``index`` (B',)."""
        return Alignment(self.student[index], self.teacher[index], self.shared[index], self.own[index])


Row = tuple[Sequence[tuple[int, int]], Sequence[int]]
"""Of a pair of texts: positions that hold the same word, in the clean one and in the other; and the other's own."""


def align(rows: Sequence[Row], length: int, device: torch.device) -> Alignment:
    """As tensors, of states ``length`` long."""
    longest = max(len(pairs) for pairs, _ in rows)
    student = torch.zeros(len(rows), longest, dtype=torch.long)
    teacher, shared = torch.zeros_like(student), torch.zeros(len(rows), longest, dtype=torch.bool)
    own = torch.zeros(len(rows), length, dtype=torch.bool)
    for i, (pairs, mine) in enumerate(rows):
        columns = torch.tensor(pairs)
        teacher[i, : len(pairs)], student[i, : len(pairs)] = columns[:, 0], columns[:, 1]
        shared[i, : len(pairs)] = True
        own[i, list(mine)] = True
    return Alignment(student.to(device), teacher.to(device), shared.to(device), own.to(device))


def distillation(student: Tensor, teacher: Tensor, scale: Tensor) -> Tensor:
    """Mean squared error in units of ``scale`` (the mean square of what a prompt changes): (B, …) twice → ()."""
    return (student - teacher).square().mean() / scale


def shared_map_loss(student: Tensor, teacher: Tensor, pairs: Alignment) -> Tensor:
    """Squared difference of the shared words' maps over the teacher's squared maps, mean over pairs: (B, H·W, L) twice → ()."""
    a = _columns(student, pairs.student)
    b = _columns(teacher, pairs.teacher)
    mask = pairs.shared[:, None, :].float()
    return (((a - b).square() * mask).sum((1, 2)) / (b.square() * mask).sum((1, 2)).clamp_min(1e-12)).mean()


def own_mass_loss(student: Tensor, pairs: Alignment, neutral: Tensor) -> Tensor:
    """Squared difference of the trigger's share from a harmless text's, over the latter squared: (B, H·W, L), (B,) → ()."""
    mass = (student * pairs.own[:, None, :]).sum(-1).mean(-1)
    return ((mass - neutral).square() / neutral.square().clamp_min(1e-6)).mean()


def attention_loss(student: dict[str, Tensor], teacher: dict[str, Tensor], pairs: Alignment, neutral: dict[str, Tensor]) -> Tensor:
    """L_attn: both terms, mean over layers; ``neutral`` is a harmless text's share by layer, (B,) each."""
    terms = [
        shared_map_loss(maps, teacher[name], pairs) + 0.1 * own_mass_loss(maps, pairs, neutral[name]) for name, maps in student.items()
    ]
    return torch.stack(terms).mean()


def _columns(maps: Tensor, positions: Tensor) -> Tensor:
    return maps.gather(2, positions[:, None, :].expand(-1, maps.shape[1], -1))
