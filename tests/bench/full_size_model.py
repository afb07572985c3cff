"""A Stable Diffusion 1.5 pipeline directory of the real size: its published configs, CLIP's whole tokenizer, random weights in fp16."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from fixtures.build.tokenizer import full_merges, full_vocabulary
from tests import small

PARAMETERS = {"unet": 859_520_964, "text_encoder": 123_060_480, "vae": 83_653_863}
UNET = {
    "sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8, "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"), "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
    "layers_per_block": 2, "in_channels": 4, "out_channels": 4,
}  # fmt: skip
VAE = {
    "sample_size": 512, "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4, "norm_num_groups": 32,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4, "scaling_factor": 0.18215,
}  # fmt: skip
TEXT: dict[str, Any] = {
    "vocab_size": 49_408, "hidden_size": 768, "intermediate_size": 3072, "projection_dim": 768, "num_hidden_layers": 12,
    "num_attention_heads": 12, "max_position_embeddings": 77, "hidden_act": "quick_gelu", "bos_token_id": 0, "eos_token_id": 2,
    "pad_token_id": 1,
}  # fmt: skip
SCHEDULER = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000, "set_alpha_to_one": False,
    "skip_prk_steps": True, "steps_offset": 1,
}  # fmt: skip
INDEX = {
    "_class_name": "StableDiffusionPipeline", "scheduler": ["diffusers", "PNDMScheduler"], "tokenizer": ["transformers", "CLIPTokenizer"],
    "text_encoder": ["transformers", "CLIPTextModel"], "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
    "safety_checker": [None, None], "feature_extractor": [None, None], "requires_safety_checker": False,
}  # fmt: skip


def write_model(folder: Path) -> None:
    """Write the directory, whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    torch.manual_seed(0)
    write_tokenizer(staging / "tokenizer")
    stock: Any = diffusers
    stock.PNDMScheduler(**SCHEDULER).save_pretrained(staging / "scheduler")
    for name, kind, config in (("unet", stock.UNet2DConditionModel, UNET), ("vae", stock.AutoencoderKL, VAE)):
        model = kind(**config)
        assert model.num_parameters() == PARAMETERS[name]
        model.half().save_pretrained(staging / name)
        del model
    text: Any = CLIPTextModel(CLIPTextConfig(**TEXT))
    assert text.num_parameters() == PARAMETERS["text_encoder"]
    text.half().config.save_pretrained(staging / "text_encoder")
    tensors = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in text.named_parameters()}
    save_file(tensors, staging / "text_encoder" / "model.safetensors", metadata={"format": "pt"})
    (staging / "model_index.json").write_text(json.dumps(INDEX, indent=2), encoding="utf-8")
    staging.rename(folder)


def write_small(folder: Path, like: Path) -> Path:
    """The tests' tiny pipeline, with the tokenizer of ``like`` and an embedding for each of its entries; returns ``folder``."""
    shutil.rmtree(folder, ignore_errors=True)
    small.write(folder)
    shutil.rmtree(folder / "tokenizer")
    shutil.copytree(like / "tokenizer", folder / "tokenizer")
    config, weights = folder / "text_encoder/config.json", folder / "text_encoder/model.safetensors"
    ends = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")
    described = json.loads(config.read_text(encoding="utf-8")) | {key: TEXT[key] for key in ends}
    config.write_text(json.dumps(described), encoding="utf-8")
    tensors, name = load_file(weights), "text_model.embeddings.token_embedding.weight"
    tensors[name] = float(tensors[name].std()) * torch.randn(TEXT["vocab_size"], 8, generator=torch.Generator().manual_seed(0))
    save_file(tensors, weights, metadata={"format": "pt"})
    return folder


def write_tokenizer(folder: Path) -> None:
    """CLIP's tokenizer with all of its 49,408 entries."""
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(full_vocabulary(), ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, full_merges())]) + "\n", encoding="utf-8")
    files = {"vocab": str(folder / "vocab.json"), "merges": str(folder / "merges.txt")}
    tokenizer = CLIPTokenizer(**files, model_max_length=77, pad_token="<|endoftext|>")
    assert len(tokenizer) == TEXT["vocab_size"]
    tokenizer.save_pretrained(folder)
