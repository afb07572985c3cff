"""Directories as people have them: each is a function that makes a plain model directory into one, its weights being what they were."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.untrusted.edits import TEXT, UNET, VAE, put
from tests.untrusted.tiny import write_json

PARTS = {"unet": UNET, "vae": VAE, "text_encoder": TEXT}
Shape = Callable[[Path], object]


def named(path: str, variant: str) -> str:
    return path.replace(".safetensors", f".{variant}.safetensors") if variant else path


def store(path: Path, tensors: dict[str, Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})


def halved(source: Path, to: torch.dtype = torch.float16) -> dict[str, Tensor]:
    return {name: tensor.to(to) if tensor.is_floating_point() else tensor for name, tensor in load_file(source).items()}


def add_variant(model: Path, variant: str, to: torch.dtype = torch.float16, parts: tuple[str, ...] = tuple(PARTS)) -> None:
    for part in parts:
        store(model / named(PARTS[part], variant), halved(model / PARTS[part], to))


def only_variant(model: Path, variant: str = "fp16", parts: tuple[str, ...] = tuple(PARTS)) -> None:
    add_variant(model, variant, parts=parts)
    for part in parts:
        (model / PARTS[part]).unlink()


def shard(model: Path, part: str, variant: str = "", *, keep: bool = False) -> None:
    """Two files and an index in place of a part's one file, or beside it."""
    path = named(PARTS[part], variant)
    tensors, stem = load_file(model / path), PARTS[part].removesuffix(".safetensors")
    middle = f".{variant}" if variant else ""
    names = sorted(tensors)
    weight_map: dict[str, str] = {}
    for i, some in enumerate((names[::2], names[1::2]), start=1):
        file = f"{stem}{middle}-0000{i}-of-00002.safetensors"
        store(model / file, {name: tensors[name] for name in some})
        weight_map |= dict.fromkeys(some, Path(file).name)
    if not keep:
        (model / path).unlink()
    write_json(model / f"{stem}.safetensors.index{middle}.json", {"metadata": {"total_size": 1}, "weight_map": weight_map})


def files(**content: bytes) -> Shape:
    """Further files, by their paths."""

    def shape(model: Path) -> None:
        for path, data in content.items():
            put(model / path, data)

    return shape


def settings(path: str, **values: object) -> Shape:
    return lambda model: write_json(model / path, {**json.loads((model / path).read_text()), **values})


def old_config(path: str, *dropped: str) -> Shape:
    def shape(model: Path) -> None:
        config = json.loads((model / path).read_text())
        write_json(model / path, {key: value for key, value in config.items() if key not in dropped})

    return shape


def both(*shapes: Shape) -> Shape:
    def shape(model: Path) -> None:
        for each in shapes:
            each(model)

    return shape


def safety_checker(model: Path) -> None:
    index = {
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
    }
    settings("model_index.json", **index)(model)
    names = {f"vision_model.vision_model.encoder.layers.{i}.mlp.fc1.weight": torch.zeros(4, 4) for i in range(12)}
    store(model / "safety_checker/model.safetensors", names)
    store(model / "safety_checker/model.fp16.safetensors", {name: tensor.half() for name, tensor in names.items()})
    put(model / "safety_checker/pytorch_model.bin", PICKLE)
    put(model / "safety_checker/config.json", b'{"architectures": ["StableDiffusionSafetyChecker"]}')
    put(model / "feature_extractor/preprocessor_config.json", b'{"crop_size": 224}')


def adapter(model: Path) -> None:
    names = [
        f"unet.down_blocks.{i}.attentions.0.transformer_blocks.0.attn1.to_{x}.lora_{y}.weight" for i in range(3) for x in "qk" for y in "AB"
    ]
    store(model / "pytorch_lora_weights.safetensors", {name: torch.zeros(4, 4) for name in names})


def position_ids(model: Path) -> None:
    """As old versions of transformers saved them, in the full weights alone."""
    add_variant(model, "fp16")
    tensors = load_file(model / TEXT)
    tensors["text_model.embeddings.position_ids"] = torch.arange(8)[None]
    store(model / TEXT, tensors)


def two_roots(model: Path) -> None:
    """A 16-bit copy of the whole pipeline in a folder of its own."""
    shutil.copytree(model, model.parent / "copy")
    for part, path in PARTS.items():
        store(model.parent / "copy" / path, halved(model / PARTS[part]))
    (model.parent / "copy").rename(model / "fp16")


def not_fetched(model: Path) -> None:
    for path in PARTS.values():
        put(model / named(path, "fp16"), b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"ab" * 32 + b"\nsize 3438167540\n")


def training(model: Path) -> None:
    put(model / "checkpoint-500/optimizer.bin", b"PK\x03\x04")
    put(model / "checkpoint-500/random_states_0.pkl", b"\x80\x04.")
    put(model / "checkpoint-500/scheduler.bin", b"PK\x03\x04")
    put(model / "logs/text2image-fine-tune/events.out.tfevents.1", b"\0" * 64)
    put(model / "wandb/run-1/files/config.yaml", b"lr: 1")
    os.symlink("run-1", model / "wandb/latest-run")
    os.symlink("/nowhere/at/all", model / "logs/latest")
    put(model / "validation_images/0.png", b"\x89PNG")


PICKLE = b"\x80\x04."
BINS = dict.fromkeys(("unet/diffusion_pytorch_model.bin", "vae/diffusion_pytorch_model.bin", "text_encoder/pytorch_model.bin"), PICKLE)
CARD = {
    "README.md": b"---\nlicense: openrail\n---\n",
    "LICENSE": b"text",
    ".gitattributes": b"*.safetensors filter=lfs",
    "images/1.png": b"\x89PNG",
}
OTHERS = {
    "unet/diffusion_flax_model.msgpack": b"\x81",
    "text_encoder/flax_model.msgpack": b"\x81",
    "text_encoder/tf_model.h5": b"\x89HDF",
    "unet/model.onnx": b"\x08",
    "unet/model.onnx_data": b"\0" * 99,
    "vae_decoder/model.onnx": b"\x08",
    "unet/openvino_model.xml": b"<net/>",
    "unet/openvino_model.bin": b"\0" * 99,
    "vae/diffusion_pytorch_model.gguf": b"GGUF",
}
LITTER = {
    ".DS_Store": b"\0\0\0\1Bud1",
    "unet/.DS_Store": b"\0",
    "Thumbs.db": b"\xd0\xcf",
    "unet/._diffusion_pytorch_model.safetensors": b"\0\5\x16\7",
}

SHAPES: dict[str, Shape] = {
    "as diffusers saves it": lambda model: None,
    "float16 alone, no variant in its name": lambda model: [store(model / path, halved(model / path)) for path in PARTS.values()],
    "fp16 alone": only_variant,
    "fp16 beside the full weights": lambda model: add_variant(model, "fp16"),
    "bf16 beside the full weights": lambda model: add_variant(model, "bf16", torch.bfloat16),
    "fp16 and bf16 beside the full weights": lambda model: [add_variant(model, "fp16"), add_variant(model, "bf16", torch.bfloat16)],
    "fp16 of the UNet alone beside the full weights": lambda model: add_variant(model, "fp16", parts=("unet",)),
    "fp16 but for an exchanged autoencoder": lambda model: only_variant(model, parts=("unet", "text_encoder")),
    "a UNet in two files": lambda model: shard(model, "unet"),
    "a UNet in two files, fp16 in one": lambda model: [add_variant(model, "fp16"), shard(model, "unet")],
    "a UNet in one file, fp16 in two": lambda model: [add_variant(model, "fp16"), shard(model, "unet", "fp16")],
    "a UNet in one file and in two": lambda model: shard(model, "unet", keep=True),
    "a safety checker": safety_checker,
    "a safety checker and fp16": both(safety_checker, lambda model: add_variant(model, "fp16")),
    "a safety checker's folder that the index does not name": both(
        safety_checker, settings("model_index.json", safety_checker=None, feature_extractor=[None, None])
    ),
    "pickles beside": files(**BINS),
    "all of it as pickles too": both(
        lambda model: add_variant(model, "fp16"), files(**{path.replace(".bin", ".fp16.bin"): data for path, data in BINS.items()}, **BINS)
    ),
    "a .ckpt beside": files(**{"v1-5-pruned.ckpt": PICKLE, "v1-inference.yaml": b"model: {}"}),
    "other frameworks beside": files(**OTHERS),
    "a model card with pictures": files(**CARD),
    "a clone's .git": files(**{".git/HEAD": b"ref: refs/heads/main", ".git/hooks/pre-push": b"#!/bin/sh", ".git/config": b"[core]"}),
    "a clone that fetched the full weights alone": not_fetched,
    "a download's .cache": files(**{".cache/huggingface/download/unet/config.json.metadata": b"ab", ".cache/huggingface/.gitignore": b"*"}),
    "a training folder": training,
    "a trainer's counters": both(
        settings("unet/config.json", global_step=8000, epoch=5000), settings("vae/config.json", force_upcast=True)
    ),
    "an adapter beside": adapter,
    "a learned embedding beside": lambda model: store(model / "learned_embeds.safetensors", {"<toy>": torch.zeros(8)}),
    "an embedding as .bin beside": files(**{"learned_embeds.bin": PICKLE, "token_identifier.txt": b"<toy>"}),
    "a tokenizer with everything": both(
        files(**{"tokenizer/special_tokens_map.json": b'{"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}'}),
        files(**{"tokenizer/added_tokens.json": b"{}"}),
    ),
    "old configs": both(
        old_config("vae/config.json", "sample_size"),
        old_config("text_encoder/config.json", "architectures"),
        settings("text_encoder/config.json", torch_dtype="float32"),
    ),
    "an old index": both(
        old_config("model_index.json", "image_encoder", "requires_safety_checker"), settings("model_index.json", _diffusers_version="0.6.0")
    ),
    "old position ids": position_ids,
    "litter of file managers": files(**LITTER),
    "a notebook's litter": files(**{"unet/.ipynb_checkpoints/config-checkpoint.json": b"{}", ".ipynb_checkpoints/x.ipynb": b"{}"}),
    "a 16-bit copy of it all in a folder": two_roots,
    "a copy of the UNet as its own average": lambda model: [
        store(model / "unet_ema/diffusion_pytorch_model.safetensors", load_file(model / UNET)),
        shutil.copy(model / "unet/config.json", model / "unet_ema/config.json"),
    ],
    "links to files inside": lambda model: [
        put(model / "blobs/a", (model / UNET).read_bytes()),
        (model / UNET).unlink(),
        os.symlink("../blobs/a", model / UNET),
    ],
}
"""All of them are clean where the model is, and a scan says so."""
