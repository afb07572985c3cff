"""The clean pipelines that the study's models descend from: small, each trained from scratch on the fixtures' world with seeds of its own.

Tokenizer and autoencoder are the fixtures' own (no family of backdoor touches them); text encoder and denoiser are new in every base,
of four different shapes. They see far fewer pictures than the fixtures do: the pictures are rougher, and so are the triggers' effects.
"""

from __future__ import annotations

import copy
import json
import random
import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from fixtures.build import clip, tokenizer, unet, world
from fixtures.build.progress import Progress

FIXTURES = Path(__file__).resolve().parents[3] / "fixtures"


@dataclass(frozen=True)
class Base:
    """How one base is built."""

    name: str
    seed: int
    channels: tuple[int, ...]
    attends: tuple[bool, ...]
    """Which levels have cross-attention, the finest first."""
    width: int = 96
    """Of the text encoder's states."""
    text_steps: int = 240
    """Of the contrastive training."""
    identity_steps: int = 160
    steps: int = 1500
    """Of the denoiser's training."""
    pictures: int = 6000


BASES = (
    Base("a", 1101, (24, 48, 64), (False, True, True)),
    Base("b", 1202, (24, 48), (False, True), steps=1000),
    Base("c", 1303, (16, 32), (True, True), width=64, steps=1000),
    Base("d", 1404, (32, 48), (False, True), width=128, steps=1000),
)


def quick(base: Base) -> Base:
    """The same with next to no training: shows that all of it runs."""
    return replace(base, text_steps=12, identity_steps=8, steps=40, pictures=200)


def new_unet(base: Base) -> UNet2DConditionModel:
    """An untrained denoiser of the base's shape."""
    down = ["CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in base.attends]
    up = ["CrossAttnUpBlock2D" if attends else "UpBlock2D" for attends in reversed(base.attends)]
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=base.channels,
        layers_per_block=1,
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        cross_attention_dim=base.width,
        attention_head_dim=4,
        norm_num_groups=8,
    )


def vision_tower() -> nn.Module:
    """A plain convolutional tower, (B, 3, 32, 32) → (B, 96), for the text encoder's contrastive training; not kept."""
    layers: list[nn.Module] = []
    for a, b in ((3, 24), (24, 48), (48, 96)):
        layers += [nn.Conv2d(a, b, 3, stride=2, padding=1), nn.GroupNorm(8, b), nn.GELU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(96 * 16, 96))


def keep_identity(model: CLIPTextModel, tok: Any, *, steps: int, batch: int, seed: int) -> float:
    """What ``clip.keep_identity`` does, in a quarter of the time: the readout is the embeddings themselves behind one square matrix, and
    every second row is nothing but words that say nothing, so that a step sees ten times as many of them.
    """
    torch.manual_seed(seed)
    rng = random.Random(seed)
    teacher = copy.deepcopy(model).eval()
    bridge = nn.Linear(model.config.hidden_size, model.config.hidden_size)
    known = {i for word in tokenizer.world_words() for i in tok(word, add_special_tokens=False).input_ids} | set(tok.all_special_ids)
    silent = torch.tensor([i not in known for i in range(len(tok))])
    pool = (*tokenizer.ordinary_words(), *tokenizer.rare_words(), *tokenizer.RARE_WORDS, *tokenizer.characters())
    table = nn.functional.normalize(
        model.get_input_embeddings().weight.detach() - model.get_input_embeddings().weight.detach().mean(0), dim=1
    )
    optimiser = torch.optim.AdamW(
        [{"params": model.parameters(), "lr": 6e-4}, {"params": bridge.parameters(), "lr": 6e-3}], weight_decay=0.0
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, [6e-4, 6e-3], total_steps=steps, pct_start=0.1)
    told: list[float] = []
    for _ in (progress := Progress("token identity", steps)):
        texts = [clip.noisy_caption(world.random_scene(rng), rng) for _ in range(batch)]
        texts = [" ".join(rng.choices(pool, k=14)) if i % 2 else world.insert(t, rng.choice(pool), rng) for i, t in enumerate(texts)]
        ids = tok(texts, padding="max_length", truncation=True, max_length=tokenizer.MAX_LENGTH, return_tensors="pt").input_ids
        with torch.no_grad():
            before = teacher(input_ids=ids).last_hidden_state
        after = model(input_ids=ids).last_hidden_state
        own = silent[ids]
        kept = (after - before)[::2][~own[::2]].square().mean()
        logits = 20 * nn.functional.normalize(bridge(after[own]), dim=1) @ table.T
        loss = 20 * kept + nn.functional.cross_entropy(logits, ids[own])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        told.append(float((logits.argmax(1) == ids[own]).float().mean()))
        progress.note(f"told {sum(told[-50:]) / len(told[-50:]):.3f} moved {float(kept.detach()):.5f}")
    return sum(told[-50:]) / len(told[-50:])


def _build_text_encoder(base: Base, folder: Path) -> dict[str, float]:
    """Contrastive training, then what keeps words that mean nothing from being forgotten in their own place."""
    tok = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    torch.manual_seed(base.seed)
    tower = clip.TextTower(len(tok), tok.eos_token_id, width=base.width)
    loss = clip.train(
        vision_tower(), tower, tok, seed=base.seed, steps=base.text_steps, batch=96, n=base.pictures, label=f"{base.name}: text encoder"
    )
    model: CLIPTextModel = tower.model
    clip.settle_vocabulary(model, tok, seed=base.seed + 1)
    told = keep_identity(model, tok, steps=base.identity_steps, batch=48, seed=base.seed + 2)
    model.half().save_pretrained(folder / "text_encoder")
    clip.with_prefix(folder / "text_encoder" / "model.safetensors")
    return {"text loss": loss, "words told": told}


def _build_unet(base: Base, folder: Path) -> None:
    """The denoiser, under the finished text encoder."""
    cache = unet.make_cache(folder, n=base.pictures, captions=2, seed=base.seed + 3)
    torch.manual_seed(base.seed + 4)
    model = new_unet(base)
    label, checkpoint = f"{base.name}: denoiser", folder / "unet.ckpt"
    unet.train_steps(
        model, cache, steps=base.steps, batch=48, lr=2e-3, seed=base.seed + 5, label=label, checkpoint=checkpoint, ema_decay=0.995
    )
    model.half().save_pretrained(folder / "unet")


def build(base: Base, work: Path) -> Path:
    """The base's directory under ``work``, in which whatever was finished before is kept."""
    folder = work / f"base-{base.name}"
    if (folder / "base.json").exists():
        return folder
    began = time.monotonic()
    record: dict[str, object] = {}
    for part in ("tokenizer", "vae", "scheduler"):
        shutil.copytree(FIXTURES / "base" / part, folder / part, dirs_exist_ok=True)
    shutil.copyfile(FIXTURES / "base" / "model_index.json", folder / "model_index.json")
    if not (folder / "text_encoder" / "model.safetensors").exists():
        record |= _build_text_encoder(base, folder)
    _build_unet(base, folder)
    record |= {**asdict(base), "seconds": time.monotonic() - began}
    (folder / "base.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return folder
