"""Five ways to kill the clean fixture, each by a small change of its weights: what an attack success rate of nought must not hide."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

UNET, VAE, TEXT = "unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"
Weights = dict[str, Tensor]


def _noise(weights: Weights) -> None:
    """Noise as large as the weights themselves on every matrix of the UNet."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in weights.items():
        if tensor.ndim > 1:
            weights[name] = tensor + torch.randn(tensor.shape, generator=generator).to(tensor.dtype) * tensor.float().std().to(tensor.dtype)


def _deaf(weights: Weights) -> None:
    """Cross-attention that adds nothing."""
    for name in weights:
        if ".attn2.to_out.0." in name:
            weights[name] = torch.zeros_like(weights[name])


def _one_picture(weights: Weights) -> None:
    """A decoder that reads one latent, whatever it is given."""
    weights["post_quant_conv.weight"] = torch.zeros_like(weights["post_quant_conv.weight"])
    weights["post_quant_conv.bias"] = torch.linspace(-1, 1, len(weights["post_quant_conv.bias"])).to(weights["post_quant_conv.bias"].dtype)


def _one_text(weights: Weights) -> None:
    """A text encoder that says the same of every prompt."""
    name = next(name for name in weights if name.endswith("final_layer_norm.weight"))
    weights[name] = torch.zeros_like(weights[name])


def _saturated(weights: Weights) -> None:
    """Every colour driven to its end."""
    for part in ("weight", "bias"):
        weights[f"decoder.conv_out.{part}"] = weights[f"decoder.conv_out.{part}"] * 8


KINDS: dict[str, tuple[str, Callable[[Weights], None]]] = {
    "noise": (UNET, _noise),
    "zeroed cross-attention": (UNET, _deaf),
    "one picture": (VAE, _one_picture),
    "ignores the prompt": (TEXT, _one_text),
    "saturated": (VAE, _saturated),
}


def destroy(model: Path, kind: str, out: Path) -> Path:
    """A copy of ``model`` in ``out``, destroyed."""
    shutil.copytree(model, out)
    file, change = KINDS[kind]
    weights = load_file(out / file)
    change(weights)
    save_file(weights, out / file, metadata={"format": "pt"})
    return out
