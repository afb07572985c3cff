"""CleanCLIP's losses (2303.03323): pure functions of features. Knows no model.

Its paper's L = ½[CE(s·IᵀT) + CE(s·TᵀI)] + ½[CE(s·IᵀĨ) + CE(s·TᵀT̃)], Ĩ and T̃ other views of the same batch; and an anchor of ours.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

MAX_SCALE = 100.0
"""Where CLIP clamps its scale (2103.00020)."""


def matching(a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
    """CE(s·AᵀB): each row of ``a`` should be nearest to the same row of ``b``; (B, D) twice → ()."""
    logits = scale.clamp(max=MAX_SCALE) * functional.normalize(a, dim=1) @ functional.normalize(b, dim=1).T
    return functional.cross_entropy(logits, torch.arange(len(a), device=a.device))


def contrastive(pictures: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """½[CE(s·IᵀT) + CE(s·TᵀI)]: (B, D) twice → ()."""
    return (matching(pictures, texts, scale) + matching(texts, pictures, scale)) / 2


def self_supervised(features: Tensor, varied: Tensor, scale: Tensor) -> Tensor:
    """½CE(s·XᵀX̃), one modality's half of the self-supervised term: (B, D) twice → ()."""
    return matching(features, varied, scale) / 2


def spread_of(states: Tensor) -> Tensor:
    """How far captions' hidden states lie apart, the unit of what moves them: their variance, (B, L, W) → ()."""
    return (states - states.mean(0, keepdim=True)).square().mean().clamp_min(1e-12)


def anchor(states: Tensor, original: Tensor, apart: Tensor) -> Tensor:
    """How far hidden states moved, in units of how far the captions' own lie ``apart``: (B, L, W) twice, () → ()."""
    return (states - original).square().mean() / apart
