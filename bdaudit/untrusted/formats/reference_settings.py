"""The settings that a single file leaves out, as those who published the family gave them: a directory of configs that lies on no disk.

They are checked as any directory's are. What a checkpoint's tensors tell has to agree; sizes that no published model has are not guessed.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from bdaudit.errors import BdauditError, InconclusiveError
from bdaudit.untrusted import clip_vocabulary
from bdaudit.untrusted.formats.single_file import Held
from bdaudit.untrusted.layouts.layout import Layout
from bdaudit.untrusted.shapes import check_described
from bdaudit.untrusted.tree import Reader, shown

Settings = Mapping[str, Mapping[str, Any]]
"""Path of a config in a diffusers directory → its content."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """One published model."""

    called: str
    index: Mapping[str, Any]
    configs: Settings
    padding: Mapping[str, str]
    """A tokenizer's folder → the token that it pads with."""
    marked: bool = False
    """Whether all loaders read the marks in a file that say that it predicts v."""
    spread: bool = False
    """Whether loaders tell by the spread of a tensor what it predicts."""


def _cross_attention(width: int, heads: int | list[int], **more: Any) -> dict[str, Any]:
    """A UNet of four levels."""
    return {
        "_class_name": "UNet2DConditionModel",
        "attention_head_dim": heads,
        "block_out_channels": [320, 640, 1280, 1280],
        "cross_attention_dim": width,
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        "in_channels": 4,
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "out_channels": 4,
        "sample_size": 64,
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
        **more,
    }


def autoencoder(scaling: float, side: int, **more: Any) -> dict[str, Any]:
    """The autoencoder of Stable Diffusion, whichever."""
    return {
        "_class_name": "AutoencoderKL",
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "in_channels": 3,
        "latent_channels": 4,
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "out_channels": 3,
        "sample_size": side,
        "scaling_factor": scaling,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        **more,
    }


def tower(width: int, layers: int, act: str, **more: Any) -> dict[str, Any]:
    """CLIP's text tower."""
    return {
        "architectures": ["CLIPTextModel"],
        "bos_token_id": 49406,
        "eos_token_id": 49407,
        "hidden_act": act,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "max_position_embeddings": 77,
        "model_type": "clip_text_model",
        "num_attention_heads": width // 64,
        "num_hidden_layers": layers,
        "pad_token_id": 49407,
        "vocab_size": 49408,
        **more,
    }


BETAS = {"beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "num_train_timesteps": 1000, "steps_offset": 1}
_DDIM = {"_class_name": "DDIMScheduler", "clip_sample": False, "set_alpha_to_one": False, **BETAS}
_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def _stable_diffusion(called: str, unet: dict[str, Any], encoder: dict[str, Any], padding: str) -> Reference:
    configs = {
        "unet/config.json": unet,
        "vae/config.json": autoencoder(0.18215, 8 * int(unet["sample_size"])),
        "text_encoder/config.json": encoder,
        "scheduler/scheduler_config.json": _DDIM,
    }
    return Reference(called=called, index=_INDEX, configs=configs, padding={"tokenizer": padding})


_SDXL = Reference(
    called="Stable Diffusion XL",
    index={
        **_INDEX,
        "_class_name": "StableDiffusionXLPipeline",
        "force_zeros_for_empty_prompt": True,
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
    },
    configs={
        "unet/config.json": {
            **_cross_attention(2048, [5, 10, 20]),
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "block_out_channels": [320, 640, 1280],
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "projection_class_embeddings_input_dim": 2816,
            "sample_size": 128,
            "transformer_layers_per_block": [1, 2, 10],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            "use_linear_projection": True,
        },
        "vae/config.json": autoencoder(0.13025, 1024, force_upcast=True),
        "text_encoder/config.json": tower(768, 12, "quick_gelu", projection_dim=768),
        "text_encoder_2/config.json": tower(1280, 32, "gelu", architectures=["CLIPTextModelWithProjection"], projection_dim=1280),
        "scheduler/scheduler_config.json": {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading", **BETAS},
    },
    padding={"tokenizer": clip_vocabulary.END, "tokenizer_2": "!"},
    marked=True,
)
REFERENCES: dict[str, tuple[Reference, ...]] = {
    "stable-diffusion": (
        _stable_diffusion("Stable Diffusion 1", _cross_attention(768, 8), tower(768, 12, "quick_gelu"), clip_vocabulary.END),
        replace(
            _stable_diffusion(
                "Stable Diffusion 2",
                _cross_attention(1024, [5, 10, 20, 20], use_linear_projection=True, upcast_attention=True),
                tower(1024, 23, "gelu"),
                "!",
            ),
            spread=True,
        ),
    ),
    "sdxl": (_SDXL,),
}
"""Family → what was published of it."""
LAYERS = {"text_encoder": 23}
"""Of a text tower whose file may hold one more: Stable Diffusion 2 has no use for the last layer of open_clip's ViT-H."""


def fitting(held: Held, where: str) -> Reference:
    """The published model whose sizes a file's tensors have.

    Raises:
        InconclusiveError: none; which settings such a model has is not guessed.
    """
    told = {part: held.layout.parts[part].described for part in held.parts}
    sizes = {part: tell({name: piece.info for name, piece in held.parts[part].items()}) for part, tell in told.items() if tell}
    misfits = []
    for reference in REFERENCES[held.layout.name]:
        odd = _misfit(reference, held.layout, sizes)
        if not odd:
            return reference
        misfits.append(f"{reference.called}: {odd}")
    said = f"{where} has the sizes of no published model ({'; '.join(misfits)})"
    raise InconclusiveError(f"{said}, and its settings are not guessed; say --config DIR, a model in diffusers' layout that has them")


def _misfit(reference: Reference, layout: Layout, sizes: Mapping[str, Mapping[str, Any]]) -> str:
    """The first size that differs, in words."""
    for part, told in sizes.items():
        path = f"{part}/{layout.parts[part].config}"
        try:
            check_described(reference.configs[path], told, path)
        except BdauditError as error:
            return str(error)
    return ""


def bundled(reference: Reference, scheduler: Mapping[str, Any]) -> Bundled:
    """A reader of what ``written`` gives."""
    contents = written(reference, scheduler)
    return Bundled(Path(), {path: len(content) for path, content in contents.items()}, contents=contents)


def written(reference: Reference, scheduler: Mapping[str, Any]) -> dict[str, bytes]:
    """Path → content of the directory that ``reference`` describes, with ``scheduler``'s settings over its own.

    Raises:
        BdauditError: as ``clip_vocabulary.files``.
    """
    configs = {"model_index.json": reference.index, **reference.configs}
    path = "scheduler/scheduler_config.json"
    configs[path] = {**configs[path], **scheduler}
    if reference.spread and scheduler.get("prediction_type") == "v_prediction":  # Stable Diffusion 2 that predicts v draws 768 pixels
        configs["unet/config.json"] = {**configs["unet/config.json"], "sample_size": 96}
    held = {path: json.dumps(config).encode() for path, config in configs.items()}
    for folder, padding in reference.padding.items():
        held |= {f"{folder}/{name}": content for name, content in clip_vocabulary.files().items()}
        held[f"{folder}/tokenizer_config.json"] = json.dumps(_tokenizer(padding)).encode()
    return held


def _tokenizer(padding: str) -> dict[str, Any]:
    start, end = clip_vocabulary.START, clip_vocabulary.END
    tokens = {"bos_token": start, "eos_token": end, "pad_token": padding, "unk_token": end}
    return {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **tokens}


@dataclass
class Bundled(Reader):
    """A reader of such a directory."""

    contents: dict[str, bytes] = field(default_factory=dict)

    def source(self, path: str) -> Path | bytes:
        """The content."""
        return self.contents[path]

    def open(self, path: str) -> BinaryIO:
        """The content, as a file.

        Raises:
            BdauditError: there is none.
        """
        if path not in self.contents:
            raise BdauditError(f"{shown(path)} is missing")
        return io.BytesIO(self.contents[path])
