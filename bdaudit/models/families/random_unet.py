"""A UNet's shapes filled with random numbers, and what a pass is given: to see what one costs before any weights are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import diffusers
import torch

TOKENS = 77


def made(
    config: Mapping[str, Any], latents: tuple[int, int], n: int, device: torch.device, dtype: torch.dtype
) -> tuple[Any, dict[str, Any]]:
    """The module, and the arguments of a pass of ``n`` latents of that height and width."""
    return _random(config, device, dtype), _inputs(config, latents, n, device, dtype)


def _random(config: Mapping[str, Any], device: torch.device, dtype: torch.dtype) -> Any:
    source: Any = diffusers.UNet2DConditionModel
    with torch.device("meta"):
        module = source.from_config(config)
    module = module.to(dtype).to_empty(device=device).eval().requires_grad_(False)
    for tensor in module.parameters():
        tensor.normal_(0, 0.02)
    return module


def _inputs(config: Mapping[str, Any], latents: tuple[int, int], n: int, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(n, *shape, device=device, dtype=dtype)

    width = config.get("cross_attention_dim", 1280)
    width = width[0] if isinstance(width, list | tuple) else width
    told: dict[str, Any] = {
        "sample": drawn(config.get("in_channels", 4), *latents),
        "timestep": torch.full((n,), 500, device=device),
        "encoder_hidden_states": drawn(TOKENS, width),
    }
    if config.get("addition_embed_type") == "text_time":
        sizes = 6 * config["addition_time_embed_dim"]
        pooled = config["projection_class_embeddings_input_dim"] - sizes
        told["added_cond_kwargs"] = {"text_embeds": drawn(pooled), "time_ids": drawn(6)}
    if config.get("time_cond_proj_dim"):
        told["timestep_cond"] = drawn(config["time_cond_proj_dim"])
    return told
