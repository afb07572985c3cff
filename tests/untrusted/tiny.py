"""A whole Stable Diffusion directory of a few kB, written with numpy alone; stock diffusers and transformers load it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

Shapes = dict[str, tuple[int, ...]]

INDEX: dict[str, Any] = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.42.1",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
UNET: dict[str, Any] = {
    "_class_name": "UNet2DConditionModel",
    "attention_head_dim": 2,
    "block_out_channels": [8],
    "cross_attention_dim": 8,
    "down_block_types": ["CrossAttnDownBlock2D"],
    "in_channels": 4,
    "layers_per_block": 1,
    "mid_block_type": None,
    "norm_num_groups": 2,
    "out_channels": 4,
    "sample_size": 4,
    "up_block_types": ["UpBlock2D"],
}
VAE: dict[str, Any] = {
    "_class_name": "AutoencoderKL",
    "block_out_channels": [8],
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 1,
    "mid_block_add_attention": False,
    "norm_num_groups": 2,
    "out_channels": 3,
    "sample_size": 8,
}
TEXT_ENCODER: dict[str, Any] = {
    "architectures": ["CLIPTextModel"],
    "bos_token_id": 0,
    "eos_token_id": 1,
    "hidden_size": 8,
    "intermediate_size": 16,
    "max_position_embeddings": 8,
    "model_type": "clip_text_model",
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "pad_token_id": 1,
    "vocab_size": 8,
}
SCHEDULER: dict[str, Any] = {
    "_class_name": "DDIMScheduler",
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "steps_offset": 1,
}
TOKENIZER: dict[str, Any] = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 8, "unk_token": "<|endoftext|>"}
VOCABULARY = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a": 2, "b": 3, "a</w>": 4, "b</w>": 5, "ab": 6, "ab</w>": 7}
MERGES = "#version: 0.2\na b\na b</w>\n"


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_model(folder: Path) -> Path:
    """The model with full weights in safetensors, one file a component; returns ``folder``."""
    write_json(folder / "model_index.json", INDEX)
    write_json(folder / "scheduler/scheduler_config.json", SCHEDULER)
    write_json(folder / "tokenizer/vocab.json", VOCABULARY)
    (folder / "tokenizer/merges.txt").write_text(MERGES, encoding="utf-8")
    write_json(folder / "tokenizer/tokenizer_config.json", TOKENIZER)
    for name, config, shapes, file in (
        ("unet", UNET, unet_shapes(), "diffusion_pytorch_model.safetensors"),
        ("vae", VAE, vae_shapes(), "diffusion_pytorch_model.safetensors"),
        ("text_encoder", TEXT_ENCODER, text_shapes(), "model.safetensors"),
    ):
        write_json(folder / name / "config.json", config)
        save_file(weights(shapes), folder / name / file, metadata={"format": "pt"})
    return folder


def weights(shapes: Shapes, dtype: type[np.floating[Any]] = np.float32) -> dict[str, np.ndarray]:
    """Small random tensors of these shapes."""
    rng = np.random.default_rng(0)
    return {name: (rng.standard_normal(shape) * 0.05).astype(dtype) for name, shape in shapes.items()}


def unet_shapes() -> Shapes:
    shapes = _layer("conv_in", 8, 4, 3, 3) | _layer("time_embedding.linear_1", 32, 8) | _layer("time_embedding.linear_2", 32, 32)
    shapes |= _resnet("down_blocks.0.resnets.0", 8, 8, time=32)
    for i in range(2):
        shapes |= _resnet(f"up_blocks.0.resnets.{i}", 8, 16, time=32)
    attention = "down_blocks.0.attentions.0"
    block = f"{attention}.transformer_blocks.0"
    shapes |= _norm(f"{attention}.norm", 8) | _layer(f"{attention}.proj_in", 8, 8, 1, 1) | _layer(f"{attention}.proj_out", 8, 8, 1, 1)
    for i in (1, 2):
        shapes |= _layer(f"{block}.attn{i}.to_out.0", 8, 8)
        shapes |= {f"{block}.attn{i}.to_{x}.weight": (8, 8) for x in "qkv"}
    shapes |= _norm(f"{block}.norm1", 8) | _norm(f"{block}.norm2", 8) | _norm(f"{block}.norm3", 8)
    shapes |= _layer(f"{block}.ff.net.0.proj", 64, 8) | _layer(f"{block}.ff.net.2", 8, 32)
    return shapes | _norm("conv_norm_out", 8) | _layer("conv_out", 4, 8, 3, 3)


def vae_shapes() -> Shapes:
    shapes = _layer("quant_conv", 8, 8, 1, 1) | _layer("post_quant_conv", 4, 4, 1, 1)
    for half, inward, outward in (("encoder", 3, 8), ("decoder", 4, 3)):
        shapes |= (
            _layer(f"{half}.conv_in", 8, inward, 3, 3) | _norm(f"{half}.conv_norm_out", 8) | _layer(f"{half}.conv_out", outward, 8, 3, 3)
        )
        shapes |= _resnet(f"{half}.mid_block.resnets.0", 8, 8) | _resnet(f"{half}.mid_block.resnets.1", 8, 8)
    shapes |= _resnet("decoder.up_blocks.0.resnets.0", 8, 8) | _resnet("decoder.up_blocks.0.resnets.1", 8, 8)
    return shapes | _resnet("encoder.down_blocks.0.resnets.0", 8, 8)


def text_shapes() -> Shapes:
    layer = "encoder.layers.0"
    shapes: Shapes = {"embeddings.token_embedding.weight": (8, 8), "embeddings.position_embedding.weight": (8, 8)}
    for name in ("q", "k", "v", "out"):
        shapes |= _layer(f"{layer}.self_attn.{name}_proj", 8, 8)
    shapes |= _norm(f"{layer}.layer_norm1", 8) | _norm(f"{layer}.layer_norm2", 8)
    shapes |= _layer(f"{layer}.mlp.fc1", 16, 8) | _layer(f"{layer}.mlp.fc2", 8, 16) | _norm("final_layer_norm", 8)
    return {f"text_model.{name}": shape for name, shape in shapes.items()}


def _layer(name: str, *shape: int) -> Shapes:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _norm(name: str, size: int) -> Shapes:
    return _layer(name, size)


def _resnet(name: str, outward: int, inward: int, time: int = 0) -> Shapes:
    shapes = _norm(f"{name}.norm1", inward) | _layer(f"{name}.conv1", outward, inward, 3, 3)
    shapes |= _norm(f"{name}.norm2", outward) | _layer(f"{name}.conv2", outward, outward, 3, 3)
    shapes |= _layer(f"{name}.time_emb_proj", outward, time) if time else {}
    return shapes | (_layer(f"{name}.conv_shortcut", outward, inward, 1, 1) if inward != outward else {})
