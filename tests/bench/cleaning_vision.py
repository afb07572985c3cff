"""A vision tower for the fixtures' text encoder, and a file of pairs: what ``--vision`` and ``--pairs`` name on the fixtures.

LiT (2111.07991): the clean pipeline's text encoder stays as it is, a vision tower and a projection are trained towards its pooled
states, and stored as an open_clip model whose own text tower is left out (it is never used).
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from bdaudit.models.suspect import Suspect
from bdaudit.models.tokens import token_ids
from bdaudit.unlearn.clean.losses import contrastive
from bdaudit.unlearn.clean.towers import Towers
from fixtures.build import world
from fixtures.build.clip import noisy_caption
from tests.bench.cleaning_clips import MEAN, STD, drawn, make_pairs

STEPS, BATCH, PAIRS, EMBED = 700, 128, 6000, 96


def write_pairs(folder: Path, n: int, seed: int) -> Path:
    """``n`` clean pictures with captions; the file's path."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    scenes = [world.random_scene(rng) for _ in range(n)]
    lines = []
    for i, picture in enumerate(drawn(scenes, rng)):
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(folder / f"{i}.png")
        lines.append(f"{i}.png\t{noisy_caption(scenes[i], rng)}\n")
    (folder / "pairs.tsv").write_text("".join(lines), encoding="utf-8")
    return folder / "pairs.tsv"


def train_vision(suspect: Suspect, folder: Path, seed: int = 501) -> None:
    """Train and store it in open_clip's layout."""
    torch.manual_seed(seed)
    rng, pairs = random.Random(seed), make_pairs(PAIRS, seed)
    towers = Towers(suspect.text.main.encoder, int(suspect.tokenizer.eos_token_id))
    with torch.no_grad():
        parts = torch.split(token_ids(suspect.tokenizer, pairs.captions), 256)
        pooled = torch.cat([towers.texts(ids, towers.states(ids)) for ids in parts])
    config: dict[str, Any] = {
        "embed_dim": EMBED, "quick_gelu": True, "vision_cfg": {"image_size": world.SIZE, "layers": [1, 1, 1, 1], "width": 20},
        "text_cfg": {"context_length": 32, "vocab_size": 8, "width": pooled.shape[1], "heads": 4, "layers": 1},
    }  # fmt: skip
    model = open_clip.CLIP(**config).train()
    trained = [*model.visual.parameters(), model.text_projection, model.logit_scale]
    optimiser = torch.optim.AdamW(trained, lr=2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=STEPS, pct_start=0.08)
    for step in range(STEPS):
        rows = rng.sample(range(PAIRS), BATCH)
        seen = model.visual((pairs.pictures[rows].float() / 255 - MEAN) / STD)
        loss = contrastive(seen, pooled[rows] @ model.text_projection, model.logit_scale.exp())
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        schedule.step()
        if step % 100 == 99:
            print(f"  vision, step {step + 1}: loss {float(loss.detach()):.3f}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    preprocess = {"mean": MEAN.flatten().tolist(), "std": STD.flatten().tolist(), "size": [world.SIZE, world.SIZE]}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
