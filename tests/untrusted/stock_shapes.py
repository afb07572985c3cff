"""Directories of many shapes that diffusers writes or once wrote, each an edit of a small whole pipeline."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Edit = Callable[[Path], None]


def change(file: str, **values: Any) -> Edit:
    """Set what ``values`` name in a JSON file, ``...`` takes it out."""

    def edit(folder: Path) -> None:
        path = folder / file
        config = json.loads(path.read_text(encoding="utf-8")) | values
        path.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}), encoding="utf-8")

    return edit


def scheduler(name: str, **values: Any) -> Edit:
    """Another scheduler, Stable Diffusion's noise levels and what ``values`` say."""

    def edit(folder: Path) -> None:
        change("model_index.json", scheduler=["diffusers", name])(folder)
        betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
        config = {"_class_name": name, "num_train_timesteps": 1000} | betas | values
        (folder / "scheduler/scheduler_config.json").write_text(json.dumps(config), encoding="utf-8")

    return edit


def with_tokens(*names: str) -> Edit:
    """Further tokens with random embeddings, saved as a textual inversion is."""

    def edit(folder: Path) -> None:
        from transformers import CLIPTextModel, CLIPTokenizer

        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
        tokenizer.add_tokens(list(names))
        text_encoder.resize_token_embeddings(len(tokenizer))
        rows = text_encoder.get_input_embeddings().weight.data
        rows[-len(names) :] = 0.5 * torch.randn(len(names), rows.shape[1], generator=torch.Generator().manual_seed(1))
        tokenizer.save_pretrained(folder / "tokenizer")
        text_encoder.save_pretrained(folder / "text_encoder")

    return edit


def guidance_embedding(folder: Path) -> None:
    """A UNet that takes the guidance scale, as distilling to few steps leaves it."""
    from diffusers import UNet2DConditionModel

    weights = load_file(folder / "unet/diffusion_pytorch_model.safetensors")
    config = json.loads((folder / "unet/config.json").read_text(encoding="utf-8"))
    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_config(config | {"time_cond_proj_dim": 32})
    unet.load_state_dict(weights, strict=False)
    torch.nn.init.normal_(unet.time_embedding.cond_proj.weight, std=0.2)
    unet.save_pretrained(folder / "unet")
    scheduler("LCMScheduler", original_inference_steps=50)(folder)


def half(folder: Path) -> None:
    """Weights of 16 bits."""
    for path in folder.glob("*/*.safetensors"):
        save_file({name: tensor.half() for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})


@dataclass(frozen=True)
class Shape:
    """A shape of directory, and how it is drawn."""

    edits: tuple[Edit, ...] = ()
    text: str = "a red cat"
    size: tuple[int, int] | None = None
    """Width and height where ``--size`` sets them."""
    told: tuple[int, int] | None = None
    """Width and height that the stock pipeline must be told where the directory names none."""


OLD = change("unet/config.json", sample_size=8, _diffusers_version="0.6.0")
TOY = with_tokens("<toy>", "<toy>_1", "<toy>_2")
LARGE: dict[str, Shape] = {
    "sample size of old": Shape((OLD,)),
    "no sample size": Shape((change("unet/config.json", sample_size=...),), told=(64, 64)),
}
"""Latents of 64, whatever the config says; on a model with little attention, or they take long."""
SHAPES: dict[str, Shape] = {
    "plain": Shape(),
    "v-prediction": Shape((change("scheduler/scheduler_config.json", prediction_type="v_prediction"),)),
    "v-prediction to nought": Shape((scheduler("DDIMScheduler", prediction_type="v_prediction", rescale_betas_zero_snr=True),)),
    "two sides": Shape((change("unet/config.json", sample_size=[4, 8]),)),
    "another size, not square": Shape(size=(32, 24)),
    "another size, of old": Shape((OLD,), size=(16, 16)),
    "guidance embedding": Shape((guidance_embedding,)),
    "embedding of several vectors": Shape((TOY,), text="a <toy> on a table"),
    "embedding of several vectors, its parts beside it": Shape((TOY,), text="<toy>_1 and x<toy>y, <TOY>"),
    "added tokens": Shape((with_tokens("<one>"),), text="a <one> on a table"),
    "a name that lies in words": Shape((with_tokens("car", "car_1"),), text="a car, a carpet, oscar"),
    "shorter texts": Shape((change("tokenizer/tokenizer_config.json", model_max_length=12),), text="a text that is cut off"),
    "half precision": Shape((half,)),
    "a scale and a shift": Shape((change("vae/config.json", scaling_factor=0.5, shift_factor=0.3, force_upcast=True),)),
    "old settings": Shape((scheduler("PNDMScheduler", steps_offset=0, clip_sample=True, skip_prk_steps=True),)),
    "DDIM that clips": Shape((scheduler("DDIMScheduler", steps_offset=0, clip_sample=True, set_alpha_to_one=False),)),
    "DDPM": Shape((scheduler("DDPMScheduler", clip_sample=True),)),
    "Euler": Shape((scheduler("EulerDiscreteScheduler", timestep_spacing="leading", steps_offset=1),)),
    "Euler, v": Shape((scheduler("EulerDiscreteScheduler", prediction_type="v_prediction"),)),
    "DPM-Solver": Shape((scheduler("DPMSolverMultistepScheduler", algorithm_type="dpmsolver++"),)),
    "UniPC": Shape((scheduler("UniPCMultistepScheduler"),)),
    "LCM": Shape((scheduler("LCMScheduler"),)),
}
