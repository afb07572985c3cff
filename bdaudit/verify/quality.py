"""How good the pictures are: CLIP score, FID and KID through torchmetrics, diversity, same-seed distances.

Pure functions of features that were computed once; the metrics of torchmetrics get them through adapters.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance
from torchmetrics.multimodal.clip_score import CLIPScore

from bdaudit import stats
from bdaudit.measure import estimates
from bdaudit.records import Estimate

FID_GROUPS = 20
"""Groups of the FID's jackknife."""
KID_SUBSETS = 100
"""Subsets that torchmetrics averages over where the two sets differ in size; equal sets are taken whole."""


# --- text and picture -------------------------------------------------------------------------


def clip_scores(pictures: Tensor, texts: Tensor) -> Tensor:
    """100 · cosine of each pair of features, (N, D) and (N, D) → (N,)."""
    return 100 * (pictures.double() * texts.double()).sum(1)


def clip_score(pictures: Tensor, texts: Tensor) -> Estimate:
    """torchmetrics' CLIPScore (2104.08718) of picture and text features (N, D) each; 0–100."""
    metric = CLIPScore(_precomputed(texts))
    metric.set_dtype(torch.float64)
    metric.update(list(pictures.double()[:, :, None, None]), [str(i) for i in range(len(texts))])
    return estimates.about(float(metric.compute()), stats.mean_interval(clip_scores(pictures, texts).numpy()), len(pictures), "t 95 %")


class _Features(nn.Module):
    """Stands in for CLIP inside CLIPScore, and hands on what it is given: text i is named ``str(i)``, picture i is (D, 1, 1)."""

    config = None

    def get_image_features(self, features: Tensor) -> Tensor:
        return features.flatten(1)

    def get_text_features(self, features: Tensor, mask: Tensor) -> Tensor:
        return features


def _precomputed(texts: Tensor) -> Any:
    def processor(*, images: list[Tensor] | None = None, text: list[str] | None = None, **_: object) -> dict[str, Tensor]:
        if images is not None:
            return {"pixel_values": torch.stack(images)}
        rows = texts.double()[[int(name) for name in text or []]]
        return {"input_ids": rows, "attention_mask": torch.ones(len(rows), 1)}

    return lambda: (_Features(), processor)


def prompt_following(pictures: Tensor, texts: Tensor, prompts: Sequence[str]) -> Estimate:
    """How often a picture is nearer to its own prompt than to another of the list: 1 is always, 0.5 is a model that ignores them.

    ``pictures`` and ``texts`` are features (N, D), ``prompts`` their N texts, of which at least two differ.

    Raises:
        ValueError: all prompts are one.
    """
    unique = sorted(set(prompts))
    if len(unique) < 2:
        raise ValueError("one prompt alone cannot show whether the model follows it; give several")
    own = torch.tensor([unique.index(prompt) for prompt in prompts])
    table = texts[[prompts.index(prompt) for prompt in unique]]
    similarity = pictures.double() @ table.double().T
    mine = similarity.gather(1, own[:, None])
    wins = (similarity < mine).double() + 0.5 * (similarity == mine).double()
    return estimates.mean((wins.sum(1) - 0.5) / (len(unique) - 1))


# --- two sets of pictures ---------------------------------------------------------------------


class _Given(nn.Module):
    """A feature extractor whose pictures are features already."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.num_features = size

    def forward(self, features: Tensor) -> Tensor:
        return features


def fid(real: Tensor, fake: Tensor) -> Estimate:
    """torchmetrics' Fréchet distance (1706.08500) of features (N, D) and (M, D).

    Biased upwards at few pictures; the interval is about its expectation at these sizes, not about the value at infinitely many.

    Raises:
        ValueError: fewer than two pictures a group of the jackknife on either side.
    """
    if min(len(real), len(fake)) < 2 * FID_GROUPS:
        raise ValueError(f"{min(len(real), len(fake))} pictures are too few for FID; expected at least {2 * FID_GROUPS}")
    metric = FrechetInceptionDistance(_Given(real.shape[1]), normalize=True)
    metric.update(real.double(), real=True)
    metric.update(fake.double(), real=False)
    value = float(metric.compute())
    without = [[frechet(rest, fake) for rest in _without_groups(real)], [frechet(real, rest) for rest in _without_groups(fake)]]
    method = f"jackknife of {FID_GROUPS} groups a side, 95 %, at this n"
    return estimates.jackknife(value, without, min(len(real), len(fake)), method, least=0.0)


def frechet(real: Tensor, fake: Tensor) -> float:
    """‖μ − μ'‖² + tr(Σ + Σ' − 2(ΣΣ')^½) without a matrix square root: tr(ΣΣ')^½ is the nuclear norm of A·A'ᵀ for Σ = AᵀA."""
    a, b = (x.double() - x.double().mean(0) for x in (real, fake))
    a, b = a / math.sqrt(len(a) - 1), b / math.sqrt(len(b) - 1)
    cross = torch.linalg.matrix_norm(_root(a) @ _root(b).T, "nuc")
    gap = (real.double().mean(0) - fake.double().mean(0)).square().sum()
    return float(gap + a.square().sum() + b.square().sum() - 2 * cross)


def _root(x: Tensor) -> Tensor:
    """R of ``x`` = QR: as few rows as there can be, and the same xᵀx."""
    root: Tensor = torch.linalg.qr(x, mode="r")[1]
    return root


def _without_groups(x: Tensor) -> list[Tensor]:
    group = torch.arange(len(x)) % FID_GROUPS
    return [x[group != g] for g in range(FID_GROUPS)]


def kid(real: Tensor, fake: Tensor, gamma: float | None, seed: int) -> Estimate:
    """torchmetrics' KID (1801.01401): the unbiased MMD² under (γ·xᵀy + 1)³, of independent sets of features (N, D) and (M, D).

    ``gamma`` is None for 1/D; ``seed`` draws the subsets where the sets differ in size. The jackknife's interval is a little wide where
    the two sets are alike: it counts the kernel's second-order part twice, which makes up for the skew that this part brings.

    Raises:
        ValueError: fewer than three pictures on a side.
    """
    size = min(len(real), len(fake))
    if size < 3:
        raise ValueError(f"{size} pictures are too few for KID; expected at least 3")
    subsets = 1 if len(real) == len(fake) else KID_SUBSETS
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*will save all extracted features in buffer")  # they are in memory already
        metric = KernelInceptionDistance(_Given(real.shape[1]), subsets=subsets, subset_size=size, gamma=gamma)
    metric.update(real.double(), real=True)
    metric.update(fake.double(), real=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**63)
        value = float(metric.compute()[0])
    in_x, in_y, between = (_kernel(a.double(), b.double(), gamma) for a, b in ((real, real), (fake, fake), (real, fake)))
    return estimates.jackknife(value, [without.numpy() for without in _without_one(in_x, in_y, between)], size)


def _kernel(a: Tensor, b: Tensor, gamma: float | None) -> Tensor:
    return (a @ b.T * (1 / a.shape[1] if gamma is None else gamma) + 1) ** 3


def _without_one(in_x: Tensor, in_y: Tensor, between: Tensor) -> tuple[Tensor, Tensor]:
    """Unbiased MMD² without each picture of the first set in turn, (N,), and without each of the second, (M,)."""
    (n, m), cross = between.shape, between.sum()
    rows_x, rows_y = in_x.sum(1) - in_x.diagonal(), in_y.sum(1) - in_y.diagonal()
    all_x, all_y = rows_x.sum(), rows_y.sum()
    less_x = (all_x - 2 * rows_x) / ((n - 1) * (n - 2)) + all_y / (m * (m - 1)) - 2 * (cross - between.sum(1)) / ((n - 1) * m)
    less_y = all_x / (n * (n - 1)) + (all_y - 2 * rows_y) / ((m - 1) * (m - 2)) - 2 * (cross - between.sum(0)) / (n * (m - 1))
    return less_x, less_y


# --- one set, and the same set by two models --------------------------------------------------


def diversity(features: Tensor) -> Estimate:
    """Mean pairwise 1 − cosine of features of length 1, (N, D), N ≥ 3; 0 is one picture for everything.

    Raises:
        ValueError: fewer than three pictures.
    """
    value, without = _spread(features)
    return estimates.jackknife(value, [without.numpy()], len(features))


def diversity_ratio(features: Tensor, reference: Tensor) -> Estimate:
    """Diversity over the reference's, paired on prompts and seeds: (N, D) twice.

    Raises:
        ValueError: fewer than three pictures, or a reference that draws one picture for everything.
    """
    (ours, ours_without), (theirs, theirs_without) = _spread(features), _spread(reference)
    if float(theirs_without.min()) <= 1e-9:
        raise ValueError("the reference draws one picture for everything, which nothing can be compared with")
    without = [(ours_without / theirs_without).numpy()]
    return estimates.jackknife(ours / theirs, without, len(features), "paired jackknife over pictures, 95 %")


def _spread(features: Tensor) -> tuple[float, Tensor]:
    """Mean pairwise 1 − cosine, and the same without each picture in turn, (N,)."""
    n = len(features)
    if n < 3:
        raise ValueError(f"{n} pictures are too few for diversity; expected at least 3")
    x = features.double()
    apart = (1 - x @ x.T).fill_diagonal_(0).sum(1)
    return float(apart.sum()) / (n * (n - 1)), (apart.sum() - 2 * apart) / ((n - 1) * (n - 2))


def clipped(pictures: Tensor) -> Tensor:
    """The share of each picture's colour values that lie at an end of the range: (N, 3, H, W) in 0–1 → (N,)."""
    return ((pictures <= 0) | (pictures >= 1)).float().mean(dim=(1, 2, 3))
