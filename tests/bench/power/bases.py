"""The clean pipelines that the study's models descend from: small, each trained from scratch on the fixtures' world with seeds of its own.

Tokenizer, text encoder and autoencoder are the fixtures' own, as every Stable Diffusion 1.x has the same ones; the denoiser is new in
every base, of four different shapes. It sees far fewer pictures than the fixtures' does: the pictures are rougher.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

from fixtures.build import unet

FIXTURES = Path(__file__).resolve().parents[3] / "fixtures"


@dataclass(frozen=True)
class Base:
    """How one base is built."""

    name: str
    seed: int
    channels: tuple[int, ...]
    attends: tuple[bool, ...]
    """Which levels have cross-attention, the finest first."""
    steps: int = 1500
    """Of the denoiser's training."""
    pictures: int = 6000
    sharp: bool = False
    """Whether it is trained until its figures are plain to see; its backdoors are then made as the fixtures' are."""
    further: bool = False
    """Whether its training begins from the fixtures' clean denoiser, of whose shape it is."""


BASES = (
    Base("a", 1101, (24, 48, 64), (False, True, True)),
    Base("b", 1202, (32, 64), (True, True)),
    Base("c", 1303, (24, 40, 56), (True, True, True), steps=1100),
    Base("d", 1404, (32, 48, 64), (False, True, True), steps=1100),
)
FRESH = (
    Base("e", 1505, (24, 48, 64), (False, True, True)),
    Base("f", 1606, (32, 48, 64), (False, True, True), steps=1100),
)
"""Bases of the second round, made after the scan's rule had been changed for what the first had shown."""
SHARP = (
    Base("g", 1707, (24, 48, 64), (False, True, True), steps=5000, pictures=12_000, sharp=True),
    Base("h", 1808, (32, 64), (True, True), steps=5000, pictures=12_000, sharp=True),
    Base("i", 1909, (24, 40, 56), (True, True, True), steps=5000, pictures=12_000, sharp=True),
    Base("j", 2010, (32, 48, 64), (False, True, True), steps=5000, pictures=12_000, sharp=True),
)
"""Bases of the third, on which attacks on figures take: the others' own figures are too muddled to be told from one another."""

JOINT = (
    Base("k", 2111, (24, 40, 64), (False, True, True), steps=5000, pictures=12_000, sharp=True),
    Base("l", 2212, (40, 64), (True, True), steps=4000, pictures=12_000, sharp=True),
    Base("m", 2313, (24, 48, 56), (True, True, True), steps=5000, pictures=12_000, sharp=True),
    Base("n", 2414, (32, 64, 96), (True, True, True), steps=1200, pictures=12_000, sharp=True, further=True),
)
"""Bases of the fourth, trained after the joint statistic was settled: three from scratch, and the fixtures' clean one, trained further."""


def quick(base: Base) -> Base:
    """The same with next to no training: shows that all of it runs."""
    return replace(base, steps=40, pictures=200)


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
        cross_attention_dim=128,
        attention_head_dim=4,
        norm_num_groups=8,
    )


def _build_unet(base: Base, folder: Path) -> None:
    """The denoiser, under the finished text encoder."""
    cache = unet.make_cache(folder, n=base.pictures, captions=2, seed=base.seed + 3)
    torch.manual_seed(base.seed + 4)
    model = UNet2DConditionModel.from_pretrained(FIXTURES / "base" / "unet", torch_dtype=torch.float32) if base.further else new_unet(base)
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
    for part in ("tokenizer", "text_encoder", "vae", "scheduler"):
        shutil.copytree(FIXTURES / "base" / part, folder / part, dirs_exist_ok=True)
    shutil.copyfile(FIXTURES / "base" / "model_index.json", folder / "model_index.json")
    _build_unet(base, folder)
    record = {**asdict(base), "seconds": time.monotonic() - began}
    (folder / "base.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return folder
