"""A whole SDXL directory of some hundred kB with random weights, written by the stock pipeline: towers of 32 and 24, pooled 20."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from tests.verify.toy import byte_tokenizer

WIDTHS, POOLED, LENGTH = (32, 24), 20, 77
PROMPTS = ("a red cat", "two big dogs in a park", "the sea at night", "an old house")


def tower(width: int, kind: type[Any], activation: str, pad: int) -> Any:
    """Random, with embeddings so large that every byte shows."""
    ends = {"bos_token_id": 512, "eos_token_id": 513, "pad_token_id": pad}
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": LENGTH, "vocab_size": 514}
    widths = {"hidden_size": width, "intermediate_size": 2 * width, "projection_dim": POOLED, "hidden_act": activation}
    made = kind(CLIPTextConfig(**widths, **sizes, **ends))
    made.get_input_embeddings().weight.data.normal_()
    return made


def unet(**settings: Any) -> UNet2DConditionModel:
    """SDXL's shape: no attention in the first block, one and two deep in the second."""
    return UNet2DConditionModel(
        **{
            "sample_size": 8, "in_channels": 4, "out_channels": 4, "block_out_channels": (8, 16), "layers_per_block": 1,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": (1, 2), "cross_attention_dim": sum(WIDTHS), "attention_head_dim": (2, 4),
            "use_linear_projection": True, "norm_num_groups": 4, "addition_embed_type": "text_time", "addition_time_embed_dim": 4,
            "projection_class_embeddings_input_dim": POOLED + 6 * 4,
        } | settings
    )  # fmt: skip


def parts(**unet_settings: Any) -> dict[str, Any]:
    """What a pipeline is made of."""
    torch.manual_seed(7)
    tokenizers = [byte_tokenizer(LENGTH), byte_tokenizer(LENGTH)]
    tokenizers[1].pad_token = "!"
    pads = [tokenizer.pad_token_id for tokenizer in tokenizers]
    vae = AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4, norm_num_groups=2, sample_size=16, mid_block_add_attention=False,
    )  # fmt: skip
    return {
        "vae": vae,
        "text_encoder": tower(WIDTHS[0], CLIPTextModel, "quick_gelu", pads[0]),
        "text_encoder_2": tower(WIDTHS[1], CLIPTextModelWithProjection, "gelu", pads[1]),
        "tokenizer": tokenizers[0],
        "tokenizer_2": tokenizers[1],
        "unet": _enlivened(unet(**unet_settings)),
        "scheduler": EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1),
    }


def _enlivened(model: UNet2DConditionModel) -> UNet2DConditionModel:
    """Weights so large that every word shows."""
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and ("attn2" in name or "add_embedding" in name):
            parameter.data *= 4
    return model


def write(folder: Path, *, unet_settings: dict[str, Any] | None = None, **settings: Any) -> Path:
    """The directory; ``settings`` are the pipeline's own."""
    StableDiffusionXLPipeline(**parts(**unet_settings or {}), add_watermarker=False, **settings).save_pretrained(folder)
    return folder
