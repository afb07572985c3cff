"""Every metric against a formula of its own, and intervals against simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor
from torch.nn import functional

from bdaudit.verify import quality


def unit(n: int, d: int, seed: int, shift: float = 0.0) -> Tensor:
    """Features of length 1 in eight clusters, as pictures of eight prompts have them."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(8, d, generator=torch.Generator().manual_seed(99))
    x = centres[torch.randint(8, (n,), generator=generator)] + 0.7 * torch.randn(n, d, generator=generator)
    x[:, 0] += shift
    return functional.normalize(x, dim=1)


def test_clip_score_is_the_mean_cosine() -> None:
    pictures, texts = unit(40, 16, 0), unit(40, 16, 1)
    by_hand = [100 * float(np.dot(p, t)) for p, t in zip(pictures.numpy(), texts.numpy(), strict=True)]
    figure = quality.clip_score(pictures, texts)
    assert figure.n == 40
    assert figure.value == pytest.approx(max(0.0, float(np.mean(by_hand))), abs=1e-4)
    assert quality.clip_scores(pictures, texts).tolist() == pytest.approx(by_hand, abs=1e-4)
    assert figure.low < figure.value < figure.high
    assert quality.clip_score(texts, texts).value == pytest.approx(100)


def test_clip_score_pairs_each_picture_with_its_own_text() -> None:
    pictures = unit(10, 16, 2)
    order = torch.arange(10).flip(0)
    assert quality.clip_score(pictures[order], pictures[order]).value == pytest.approx(100)
    assert quality.clip_score(pictures[order], pictures).value < 90


@pytest.mark.parametrize(("n", "m", "d"), [(60, 60, 12), (60, 90, 12), (50, 50, 80)])
def test_fid_agrees_with_the_textbook(n: int, m: int, d: int) -> None:
    x, y = unit(n, d, 3).double(), unit(m, d, 4, shift=1.0).double()
    mean = ((x.mean(0) - y.mean(0)) ** 2).sum()
    a, b = np.cov(x.numpy(), rowvar=False), np.cov(y.numpy(), rowvar=False)
    # tr (AB)^½ = tr (A^½ B A^½)^½, whose argument is symmetric
    values, vectors = np.linalg.eigh(a)
    root = vectors @ np.diag(np.sqrt(values.clip(0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ b @ root).clip(0)).sum()
    by_hand = float(mean) + float(np.trace(a) + np.trace(b) - 2 * cross)
    assert quality.fid(x, y).value == pytest.approx(by_hand, abs=1e-3)
    assert quality.frechet(x, y) == pytest.approx(by_hand, abs=1e-6)
    if d < n:
        assert by_hand == pytest.approx(float(mean) + np.trace(a + b - 2 * scipy.linalg.sqrtm(a @ b).real), abs=1e-6)


def test_fid_of_a_set_with_itself_is_nothing_and_small_sets_are_refused() -> None:
    x = unit(80, 12, 5)
    assert quality.fid(x, x).value == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="too few for FID"):
        quality.fid(x, x[:20])


def mmd(x: np.ndarray, y: np.ndarray, gamma: float) -> float:
    """The unbiased MMD² by three double loops."""

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((gamma * a @ b + 1) ** 3)

    within = sum(k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j) / (len(x) * (len(x) - 1))
    other = sum(k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j) / (len(y) * (len(y) - 1))
    return within + other - 2 * sum(k(a, b) for a in x for b in y) / (len(x) * len(y))


@pytest.mark.parametrize("gamma", [1.0, None])
def test_kid_agrees_with_the_double_loop(gamma: float | None) -> None:
    x, y = unit(30, 12, 6), unit(30, 12, 7, shift=1.0)
    by_hand = mmd(x.double().numpy(), y.double().numpy(), gamma or 1 / 12)
    assert quality.kid(x, y, gamma, seed=0).value == pytest.approx(by_hand, abs=1e-6)


def test_kid_of_unequal_sets_is_near_the_double_loop_repeats_and_leaves_the_global_generator_alone() -> None:
    x, y = unit(200, 12, 8), unit(60, 12, 9, shift=2.0)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    figure = quality.kid(x, y, 1.0, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert figure == quality.kid(x, y, 1.0, seed=3)
    assert figure.value == pytest.approx(mmd(x.double().numpy(), y.double().numpy(), 1.0), abs=0.02)
    assert figure.low < figure.value < figure.high


def test_leaving_one_out_is_what_the_closed_form_says() -> None:
    x, y = unit(9, 6, 10).double(), unit(7, 6, 11).double()
    kernels = [quality._kernel(a, b, 1.0) for a, b in ((x, x), (y, y), (x, y))]
    less_x, less_y = quality._without_one(*kernels)
    keep = lambda data, i: np.delete(data.numpy(), i, axis=0)  # noqa: E731
    assert less_x.tolist() == pytest.approx([mmd(keep(x, i), y.numpy(), 1.0) for i in range(9)])
    assert less_y.tolist() == pytest.approx([mmd(x.numpy(), keep(y, i), 1.0) for i in range(7)])


def test_kid_interval_covers() -> None:
    # KID is unbiased, so that the mean of many stands for the truth where the sets differ
    for shift in (0.0, 2.0):
        found = [quality.kid(unit(80, 16, 10_000 + s), unit(80, 16, 50_000 + s, shift), 1.0, 0) for s in range(500)]
        truth = np.mean([figure.value for figure in found]) if shift else 0.0
        covered = np.mean([figure.low <= truth <= figure.high for figure in found])
        assert 0.93 <= covered <= 0.985


def test_prompt_following_of_a_perfect_a_blind_and_a_contrary_model() -> None:
    prompts = [f"prompt {i % 10}" for i in range(100)]
    table = unit(10, 16, 12)
    texts = table[[i % 10 for i in range(100)]]
    assert quality.prompt_following(texts, texts, prompts).value == 1.0
    assert quality.prompt_following(-texts, texts, prompts).value == 0.0
    one = texts[:1].expand(100, -1)
    assert quality.prompt_following(one, texts, prompts).value == pytest.approx(0.5)
    blind = quality.prompt_following(unit(100, 16, 13), texts, prompts)
    assert blind.low <= 0.5 <= blind.high
    with pytest.raises(ValueError, match="one prompt alone"):
        quality.prompt_following(texts, texts, ["same"] * 100)


def test_diversity_by_hand() -> None:
    x = unit(12, 8, 14).double()
    pairs = [1 - float(x[i] @ x[j]) for i in range(12) for j in range(12) if i != j]
    assert quality.diversity(x).value == pytest.approx(float(np.mean(pairs)))
    assert quality.diversity(x[:1].expand(10, -1)).value == pytest.approx(0, abs=1e-6)
    assert not math.isnan(quality.diversity(x).low)


def test_the_diversity_ratio_is_that_of_the_two_diversities() -> None:
    x, y = unit(12, 8, 14), unit(12, 8, 15)
    ratio = quality.diversity_ratio(x, y)
    assert ratio.value == pytest.approx(quality.diversity(x).value / quality.diversity(y).value)
    itself = quality.diversity_ratio(x, x)
    assert (itself.value, itself.low, itself.high) == pytest.approx((1, 1, 1))
    assert quality.diversity_ratio(x[:1].expand(12, -1), y).high < 1e-6
    with pytest.raises(ValueError, match="one picture for everything"):
        quality.diversity_ratio(x, y[:1].expand(12, -1))


def test_clipped_counts_values_at_the_ends_alone() -> None:
    pictures = torch.full((2, 3, 2, 2), 0.5)
    pictures[1, 0, 0, 0], pictures[1, 1, 0, 0], pictures[1, 2, 0, 0] = 0.0, 1.0, 0.999
    assert quality.clipped(pictures).tolist() == pytest.approx([0, 2 / 12])
