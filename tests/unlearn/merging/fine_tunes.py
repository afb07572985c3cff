"""Fine-tunes of the tiny model: copies in which some tensors are shifted by seeded noise."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

FILES = {"unet": "unet/diffusion_pytorch_model.safetensors", "text_encoder": "text_encoder/model.safetensors"}
ATTENTION = "attn2.to_v"


def fine_tune(
    base: Path, folder: Path, seed: int, size: float = 0.1, part: str = "unet", chosen: Callable[[str], bool] = lambda name: True
) -> Path:
    """``base`` with noise of ``size`` times each chosen tensor's own RMS added."""
    shutil.copytree(base, folder)
    path, rng = folder / FILES[part], np.random.default_rng(seed)
    tensors = load_file(path)
    for name, tensor in tensors.items():
        noise = rng.standard_normal(tensor.shape) * size * np.sqrt(np.square(tensor).mean() + 1e-8)
        if chosen(name):
            tensors[name] = (tensor + noise).astype(tensor.dtype)
    save_file(tensors, path, metadata={"format": "pt"})
    return folder
