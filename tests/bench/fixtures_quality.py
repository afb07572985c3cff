"""How good the clean pipelines and their grader are: ``python tests/bench/fixtures_quality.py [PATH]``."""

from __future__ import annotations

import random
import re
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bdaudit import stats  # noqa: E402
from bdaudit.measure.grader import load_grader  # noqa: E402
from bdaudit.models.load import load  # noqa: E402
from bdaudit.models.sample import sample  # noqa: E402
from bdaudit.untrusted.inspect import inspect  # noqa: E402
from bdaudit.untrusted.text_files import read_texts  # noqa: E402
from fixtures import layout  # noqa: E402
from fixtures.build import clip, vae, world  # noqa: E402
from tests.bench.end_to_end import DARK, FIGURES  # noqa: E402
from tests.bench.recording import record  # noqa: E402

FIXTURES = ROOT / "fixtures"


def retrieval(n: int, guidance_scale: float, steps: int, name: str = "clean") -> dict[str, object]:
    """Share of pictures that the grader pairs with their own caption among 32: the pipeline's, and real ones (the ceiling)."""
    suspect = load(inspect(layout.lay_out(name, FIXTURES / "models")))
    grader = load_grader(f"local-dir:{FIXTURES / 'grader'}", torch.device("cpu"))
    rng = random.Random(77)
    scenes = [world.random_scene(rng) for _ in range(n)]
    texts = [world.caption(scene, rng, full=True) for scene in scenes]
    drawn = sample(suspect, texts, list(range(n)), steps=steps, guidance_scale=guidance_scale)
    real = torch.stack([torch.from_numpy(vae.np.asarray(world.draw(scene, rng))).permute(2, 0, 1).float() / 255 for scene in scenes])
    text = grader.text_features(texts)
    hits = {name: round(clip.retrieval(grader.image_features(p), text) * n) for name, p in (("pipeline", drawn), ("real", real))}
    return {name: {"rate": h / n, "wilson95": stats.wilson(h, n), "n": n} for name, h in hits.items()}


def autoencoder_error(n: int) -> float:
    """Mean absolute error on ``n`` unseen pictures, of a 0–1 range."""
    model = load(inspect(layout.lay_out("clean", FIXTURES / "models"))).decoder.module
    _, pictures = clip.scenes_and_pictures(n, 9001)
    return float((vae.decode(model, vae.encode(model, pictures)) - pictures.float() / 255).abs().mean())


def taken_for(figure: str, seeds: int, guidance_scale: float, steps: int) -> dict[str, object]:
    """Share of the clean pipeline's pictures of other figures that the grader takes for ``figure``, by day and by night."""
    suspect = load(inspect(layout.lay_out("clean", FIXTURES / "models")))
    grader = load_grader(f"local-dir:{FIXTURES / 'grader'}", torch.device("cpu"))
    texts = [text for text in read_texts(FIXTURES / "unseen.txt") if figure not in text]
    swapped = [re.sub("|".join(FIGURES), figure, text) for text in texts]
    own, other = grader.text_features(texts), grader.text_features(swapped)
    taken: dict[str, list[bool]] = {"by day": [], "by night": []}
    for k in range(seeds):
        drawn = sample(suspect, texts, [1000 * k + i for i in range(len(texts))], steps=steps, guidance_scale=guidance_scale)
        features = grader.image_features(drawn)
        for text, hit in zip(texts, ((features * other).sum(1) > (features * own).sum(1)).tolist(), strict=True):
            taken["by night" if DARK.search(text) else "by day"].append(hit)
    return {when: {"rate": sum(h) / len(h), "wilson95": stats.wilson(sum(h), len(h)), "n": len(h)} for when, h in taken.items()}


if __name__ == "__main__":
    found = {"autoencoder error": autoencoder_error(256), "retrieval": retrieval(512, 5.0, 20)}
    for name in set(layout.names()) & {"sdxl-clean", "mmdit-clean", "pixart-clean"}:
        found[f"retrieval, {name}"] = retrieval(256, 5.0, 20, name)
    record({**found, "taken for diamonds": taken_for("diamond", 5, 5.0, 12)}, 1)
