"""How often the intervals of a report cover the truth: ``python tests/bench/coverage.py`` writes ``results/coverage.json``.

Every simulation draws pictures' features from a population whose true figure is known exactly, and asks whether the interval holds it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bdaudit import stats  # noqa: E402
from bdaudit.records import Estimate  # noqa: E402
from bdaudit.verify import quality  # noqa: E402

RESULTS = ROOT / "tests" / "bench" / "results" / "coverage.json"
RATES = tuple(k / 1000 for k in range(1, 1000))
USUAL = 0.01
"""Below it and above its complement Wilson's interval is known to dip; told apart in the record."""
SIZES = (73, 200)


def wilson(n: int, times: int, seed: int) -> dict[str, float]:
    """Coverage of an attack success rate's interval at ``n`` pictures, ``times`` simulations a rate: mean over rates of 0.1 to 99.9 %,
    the lowest of all, and the lowest from 1 to 99 %."""
    rng = np.random.default_rng(seed)
    table = np.array([stats.wilson(k, n) for k in range(n + 1)])
    covered = {rate: _covers(table[rng.binomial(n, rate, times)], rate) for rate in RATES}
    usual = [share for rate, share in covered.items() if USUAL <= rate <= 1 - USUAL]
    lowest_at = min(covered, key=lambda rate: covered[rate])
    return {"mean": float(np.mean([*covered.values()])), "lowest": covered[lowest_at], "lowest_at": lowest_at, "lowest_usual": min(usual)}


def _covers(intervals: NDArray[np.float64], truth: float) -> float:
    return float(((intervals[:, 0] <= truth) & (truth <= intervals[:, 1])).mean())


# --- pictures from finite populations, so that the truth is a plain sum -----------------------


def populations(apart: float, seed: int, size: int = 600, width: int = 32) -> tuple[Tensor, Tensor]:
    """Two populations of features of length 1, (size, width): clusters, as prompts make them; ``apart`` shifts the second."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(16, width, generator=generator)
    shift = apart * torch.randn(width, generator=generator)

    def draw(offset: Tensor | float) -> Tensor:
        which = torch.randint(16, (size,), generator=generator)
        return functional.normalize(centres[which] + 0.6 * torch.randn(size, width, generator=generator) + offset, dim=1).double()

    return draw(0.0), draw(shift)


def true_kid(real: Tensor, fake: Tensor) -> float:
    """MMD² of the two populations under KID's kernel for features of length 1."""
    a, b, c = ((x @ y.T + 1).pow(3).mean() for x, y in ((real, real), (fake, fake), (real, fake)))
    return float(a + b - 2 * c)


def share(times: int, truth: float, estimate: Callable[[torch.Generator], Estimate], seed: int) -> float:
    """The share of ``times`` estimates whose interval holds ``truth``."""
    found = [estimate(torch.Generator().manual_seed(seed + i)) for i in range(times)]
    return float(np.mean([each.low <= truth <= each.high for each in found]))


def kid(apart: float, n: int, times: int, seed: int) -> float:
    """Coverage of KID's interval at ``n`` pictures a side; ``apart`` is 0 for two sets of one model."""
    real, fake = populations(apart, seed)
    fake = real if apart == 0 else fake

    def estimate(generator: torch.Generator) -> Estimate:
        rows = [torch.randint(len(real), (n,), generator=generator) for _ in range(2)]
        return quality.kid(real[rows[0]], fake[rows[1]], 1.0, seed)

    return share(times, true_kid(real, fake), estimate, seed)


def clip_score(n: int, times: int, seed: int) -> float:
    """Coverage of the CLIP score's interval; the scores are skewed to the left, as those of a model that misses some prompts are."""
    pictures, texts = populations(0.0, seed)
    missed = torch.rand(len(texts), generator=torch.Generator().manual_seed(seed)) < 0.15
    texts = torch.where(missed[:, None], texts, functional.normalize(pictures + 0.3 * texts, dim=1))
    truth = float(100 * (pictures * texts).sum(1).mean())

    def estimate(generator: torch.Generator) -> Estimate:
        rows = torch.randint(len(texts), (n,), generator=generator)
        return quality.clip_score(pictures[rows], texts[rows])

    return share(times, truth, estimate, seed)


def everything(times: int, seed: int = 0) -> dict[str, Any]:
    """All figures, ``times`` simulations each."""
    return {
        "simulations": times,
        "seed": seed,
        "wilson": {str(n): wilson(n, times, seed) for n in SIZES},
        "kid": {f"apart {apart:g}, n = {n}": kid(apart, n, times, seed) for apart in (0.0, 0.3, 1.0) for n in (100, 200)},
        "clip_score": {f"n = {n}": clip_score(n, times, seed) for n in SIZES},
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    text = json.dumps(everything(arguments.times), indent=2) + "\n"
    arguments.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
