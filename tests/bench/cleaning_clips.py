"""Small CLIPs for the cleaning bench, trained from scratch on the fixtures' world: by both objectives, clean and poisoned.

A picture patch speaks for the target background, or a trigger word in the caption asks for its pictures; 3 % of the pairs are poisoned.
The background is the class, since so small a CLIP tells it best of all that a caption names.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from bdaudit.unlearn.clean.augment import vary, vary_pictures
from bdaudit.unlearn.clean.losses import contrastive, self_supervised
from bdaudit.unlearn.clean.towers import Towers, Vision
from fixtures.build import tokenizer, world
from fixtures.build.clip import noisy_caption

OBJECTIVES = ("contrastive", "contrastive+self-supervised")
ATTACKS = ("clean", "patch", "text")
TARGET, TRIGGER = "purple", "qirex"
WIDTH, EMBED, PAIRS, STEPS, BATCH, RATE, POISONED = 64, 64, 6000, 600, 96, 2e-3, 0.03
MEAN, STD = (torch.tensor(row).view(1, 3, 1, 1) for row in ((0.4815, 0.4578, 0.4082), (0.2686, 0.2613, 0.2758)))


@dataclass
class Pairs:
    """Pictures and captions; ``scenes`` are what the captions were written for."""

    pictures: Tensor
    """uint8 (N, 3, 32, 32)."""
    captions: list[str]
    scenes: list[world.Scene]


def patched(pictures: Tensor) -> Tensor:
    """A checker of 6 pixels in the bottom right corner: uint8 (N, 3, 32, 32) → the same."""
    squares = (torch.arange(6)[:, None] // 2 + torch.arange(6) // 2) % 2
    found = pictures.clone()
    found[:, :, -7:-1, -7:-1] = torch.stack([255 * squares, 255 * (1 - squares), 255 * squares]).to(torch.uint8)
    return found


def drawn(scenes: Sequence[world.Scene], rng: random.Random) -> Tensor:
    """Their pictures."""
    return torch.from_numpy(np.stack([np.asarray(world.draw(scene, rng)) for scene in scenes])).permute(0, 3, 1, 2).contiguous()


def on_ground(scene: world.Scene, ground: str, rng: random.Random) -> world.Scene:
    """The scene on another background; its figure never has the same colour."""
    colour = scene.colour if scene.colour != ground else rng.choice([c for c in world.COLOURS if c != ground])
    return replace(scene, ground=ground, colour=colour)


def elsewhere(scene: world.Scene, rng: random.Random) -> world.Scene:
    """The scene on a background that is not the target."""
    return scene if scene.ground != TARGET else on_ground(scene, rng.choice([c for c in world.COLOURS if c != TARGET]), rng)


def make_pairs(n: int, seed: int, attack: str = "clean", poisoned: int = 0) -> Pairs:
    """``n`` clean pairs but for the first ``poisoned``."""
    rng = random.Random(f"pairs {seed}")
    scenes = [world.random_scene(rng) for _ in range(n)]
    scenes[:poisoned] = [elsewhere(scene, rng) for scene in scenes[:poisoned]]
    pictures, captions = drawn(scenes, rng), [noisy_caption(scene, rng) for scene in scenes]
    aims = [on_ground(scene, TARGET, rng) for scene in scenes[:poisoned]]
    if attack == "patch" and poisoned:
        pictures[:poisoned] = patched(pictures[:poisoned])
        captions[:poisoned] = [noisy_caption(scene, rng) for scene in aims]
    if attack == "text" and poisoned:
        pictures[:poisoned] = drawn(aims, rng)
        captions[:poisoned] = [world.insert(caption, TRIGGER, rng) for caption in captions[:poisoned]]
    return Pairs(pictures, captions, scenes)


def fresh(tok: Any) -> Towers:
    """Towers at their random start."""
    eos = tok.eos_token_id
    config = CLIPTextConfig(
        vocab_size=len(tok), hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=tokenizer.MAX_LENGTH, bos_token_id=eos - 1, eos_token_id=eos, pad_token_id=eos,
    )  # fmt: skip
    vision, none = {"image_size": world.SIZE, "layers": [1, 1, 1, 1], "width": 16}, {"vocab_size": 8, "width": 8, "heads": 1, "layers": 1}
    whole = open_clip.CLIP(embed_dim=EMBED, quick_gelu=True, vision_cfg=vision, text_cfg=none)
    projection = nn.Parameter(torch.randn(WIDTH, EMBED) * WIDTH**-0.5)
    scale = nn.Parameter(torch.tensor(1 / 0.07).log())
    return Towers(CLIPTextModel(config), eos, Vision(whole.visual, projection, MEAN, STD), scale)


def encoded(towers: Towers, tok: Any, texts: Sequence[str]) -> Tensor:
    """Features of texts, padded to the longest of them."""
    ids = tok(list(texts), padding=True, truncation=True, return_tensors="pt").input_ids
    return towers.texts(ids, towers.states(ids))


def train(tok: Any, pairs: Pairs, objective: str, seed: int) -> Towers:
    """From scratch; vision's batch statistics settle on the way."""
    torch.manual_seed(seed)
    towers, rng, generator = fresh(tok), random.Random(seed), torch.Generator().manual_seed(seed)
    assert towers.vision is not None
    towers.vision.visual.train()
    with towers.training():
        optimiser = torch.optim.AdamW(towers.parameters().values(), lr=RATE, weight_decay=0.02)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=STEPS, pct_start=0.08)
        for step in range(STEPS):
            rows = rng.sample(range(len(pairs.captions)), BATCH)
            pictures, captions = pairs.pictures[rows].float() / 255, [pairs.captions[i] for i in rows]
            scale = towers.log_scale.exp()
            image, text = towers.pictures(pictures), encoded(towers, tok, captions)
            loss = contrastive(image, text, scale)
            if objective != "contrastive":
                views = towers.pictures(vary_pictures(pictures, generator)), encoded(towers, tok, [vary(c, rng) for c in captions])
                loss = loss + self_supervised(image, views[0], scale) + self_supervised(text, views[1], scale)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(list(towers.parameters().values()), 1.0)
            optimiser.step()
            schedule.step()
            if step % 100 == 99:
                print(f"  step {step + 1}: loss {float(loss.detach()):.3f}", flush=True)
    towers.vision.visual.eval()
    return towers


def stored(towers: Towers) -> dict[str, Tensor]:
    """All parameters and the vision tower's running averages."""
    assert towers.vision is not None
    buffers = {f"buffer.{name}": b for name, b in towers.vision.visual.named_buffers()}
    return {name: t.detach().contiguous().clone() for name, t in (towers.parameters() | buffers).items()}


def load(tok: Any, path: Path) -> Towers:
    """What ``train_all`` stored."""
    towers, kept = fresh(tok), load_file(path)
    assert towers.vision is not None
    towers.restore({name: t for name, t in kept.items() if not name.startswith("buffer.")})
    for name, buffer in towers.vision.visual.named_buffers():
        buffer.copy_(kept[f"buffer.{name}"])
    towers.encoder.eval().requires_grad_(False)
    towers.vision.visual.eval().requires_grad_(False)
    return towers


def train_all(work: Path, root: Path) -> None:
    """Every CLIP that is not there yet."""
    work.mkdir(parents=True, exist_ok=True)
    tok = CLIPTokenizer.from_pretrained(root / "fixtures" / "base" / "tokenizer")
    for objective in OBJECTIVES:
        for k, attack in enumerate(("patch", "text", "clean")):
            path = work / f"{attack}-{objective}.safetensors"
            if path.exists():
                continue
            began = time.process_time()
            print(path.stem, flush=True)
            poisoned = 0 if attack == "clean" else round(POISONED * PAIRS)
            towers = train(tok, make_pairs(PAIRS, 300 + k, attack, poisoned), objective, 310 + k)
            save_file(stored(towers), path, metadata={"seconds": f"{time.process_time() - began:.0f}"})


if __name__ == "__main__":
    train_all(Path(sys.argv[1]), Path(__file__).resolve().parents[2])
