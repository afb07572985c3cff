"""How few denoising steps keep the figures: ``python tests/bench/steps.py [PATH]``.

The clean pipeline's pictures of unseen prompts at several step counts and spacings of the timesteps: their CLIP score, and how far they are
from the same seeds' pictures at 60 even steps, in the grader's features.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bdaudit.measure.grader import load_grader  # noqa: E402
from bdaudit.models import sample  # noqa: E402
from bdaudit.models.load import load  # noqa: E402
from bdaudit.untrusted.inspect import inspect  # noqa: E402
from bdaudit.untrusted.text_files import read_texts  # noqa: E402
from fixtures import layout  # noqa: E402
from tests.bench.recording import record  # noqa: E402

FIXTURES = ROOT / "fixtures"
TRIED = ((20, 1.0), (12, 1.0), (12, sample.SPACING), (12, 1.6), (10, sample.SPACING))
N = 128


def main() -> None:
    """Draw, compare, record."""
    suspect = load(inspect(layout.lay_out("clean", FIXTURES / "models")))
    grader = load_grader(f"local-dir:{FIXTURES / 'grader'}", torch.device("cpu"))
    texts = read_texts(FIXTURES / "unseen.txt")[:N]
    prompts = grader.text_features(texts)

    def drawn(steps: int, spacing: float) -> torch.Tensor:
        with mock.patch.object(sample, "denoise", partial(sample.denoise, spacing=spacing)):
            return grader.image_features(sample.sample(suspect, texts, range(N), steps=steps, guidance_scale=5.0))

    best = drawn(60, 1.0)
    rows: list[dict[str, Any]] = []
    for steps, spacing in TRIED:
        features = drawn(steps, spacing)
        apart = 1 - (features * best).sum(1)
        score = 100 * float((features * prompts).sum(1).mean())
        rows.append({"steps": steps, "spacing": spacing, "CLIP score": score, "1 - cosine to 60 steps": float(apart.mean()), "n": N})
    record({"steps": rows}, 1)


if __name__ == "__main__":
    main()
