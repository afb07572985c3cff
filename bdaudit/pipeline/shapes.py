"""Whether the configs describe the weights there are, so that no config can ask for more than its weights hold."""

from __future__ import annotations

import math
import re
from typing import Any

from bdaudit.errors import BdauditError, InconclusiveError
from bdaudit.pipeline.reading import shown
from bdaudit.pipeline.safetensors_header import TensorInfo

Tensors = dict[str, TensorInfo]

_LARGEST = 4096
"""The largest number in a model's config, but for a vocabulary; Stable Diffusion's is 4,096."""
_MOST_LAYERS = {"num_hidden_layers": 64, "layers_per_block": 8, "transformer_layers_per_block": 16}
_COUNTERS = frozenset({"global_step", "step", "epoch", "optimization_step", "update_after_step"})
"""What trainers leave in a config; no model is built by it."""


def check_shapes(component: str, config: dict[str, Any], tensors: Tensors) -> None:
    """Compare the sizes a config asks for with the tensors there are.

    Raises:
        BdauditError: they disagree, or a number other than the vocabulary's size is larger than 4,096.
    """
    where = f"{component}/config.json"
    for key, value in config.items():
        for number in _numbers(value):
            if _allocates(number) and key not in ("vocab_size", *_COUNTERS) and not key.endswith("_token_id"):
                raise BdauditError(f"{where}: {shown(key)} is {shown(number)}, which no tensor of its weights fits")
    try:
        described = _expected(component, tensors)
    except BdauditError as error:
        raise BdauditError(f"{component}: {error}") from error
    for key, expected in described.items():
        got = _plain(config.get(key, expected), expected)
        if got != expected:
            raise BdauditError(f"{where}: {key} is {shown(got)}, its weights have {shown(expected)}")
        if max(_numbers(expected), default=0) > _MOST_LAYERS.get(key, math.inf):
            raise BdauditError(f"{where}: {key} is {shown(got)}; at most {_MOST_LAYERS[key]} are built")
    _check_depths(config, tensors, where)


def _check_depths(config: dict[str, Any], tensors: Tensors, where: str) -> None:
    """No block of a UNet is asked to be deeper than the deepest there is."""
    deepest = max(_counts(tensors, r"(.+)\.transformer_blocks\.(\d+)\.").values(), default=0)
    for key in ("transformer_layers_per_block", "reverse_transformer_layers_per_block"):
        asked = max(_numbers(config.get(key)), default=0)
        if asked > max(1, deepest) or asked > _MOST_LAYERS["transformer_layers_per_block"]:
            raise BdauditError(f"{where}: {key} is {shown(asked)}, its weights have {deepest}")


def check_scale(vae: dict[str, Any]) -> None:
    """Whether the latents' scale is such that pictures can be drawn.

    Raises:
        BdauditError: a ``scaling_factor`` that is no positive number.
    """
    scale = vae.get("scaling_factor", 1.0)
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 1e-4 < scale < 1e4:
        raise BdauditError(f"vae/config.json: scaling_factor is {shown(scale)}; expected a positive number")


def embeddings(tensors: Tensors) -> int:
    """How many token ids a text encoder has embeddings for; 0 for another model."""
    return next((t.shape[0] for name, t in tensors.items() if name.endswith("token_embedding.weight") and t.shape), 0)


def check_channels(unet: dict[str, Any], vae: dict[str, Any]) -> None:
    """Whether the UNet denoises plain latents: inpainting and the like take further channels, a learned variance comes out of them.

    Raises:
        InconclusiveError: it does not.
    """
    channels, latent = unet.get("in_channels", 4), vae.get("latent_channels", 4)
    if channels != latent:
        what = f"the UNet takes {shown(channels)} channels where latents have {shown(latent)}"
        raise InconclusiveError(f"{what}; only text-to-image is supported")
    out = unet.get("out_channels", 4)
    if out != latent:
        what = f"the UNet gives {shown(out)} channels where latents have {shown(latent)}"
        raise InconclusiveError(f"{what}; a learned variance is not supported")


def _allocates(number: float) -> bool:
    return (isinstance(number, float) and not math.isfinite(number)) or abs(number) > _LARGEST


def _numbers(value: Any) -> list[float]:
    todo, found = [value], []
    while todo:
        item = todo.pop()
        if isinstance(item, dict | list):
            todo += item.values() if isinstance(item, dict) else item
        elif isinstance(item, int | float) and not isinstance(item, bool):
            found.append(item)
    return found


def _plain(value: Any, expected: Any) -> Any:
    """One number where ``expected`` is a list stands for all of it, and a list of equal numbers for one."""
    if isinstance(expected, list) and type(value) is int:
        return [value] * len(expected)
    if isinstance(expected, int) and isinstance(value, list) and value and all(v == value[0] for v in value):
        return value[0]
    return value


def _expected(component: str, tensors: Tensors) -> dict[str, Any]:
    if component == "text_encoder":
        return _expected_text(tensors)
    prefix = "" if component == "unet" else "encoder."
    layers = _counts(tensors, rf"({prefix}down_blocks\.\d+)\.resnets\.(\d+)\.")
    blocks = [f"{prefix}down_blocks.{i}" for i in range(len(layers))]
    expected: dict[str, Any] = {
        "in_channels": _size(tensors, f"{prefix}conv_in.weight", 1),
        "out_channels": _size(tensors, "conv_out.weight" if component == "unet" else "decoder.conv_out.weight", 0),
        "block_out_channels": [_size(tensors, f"{block}.resnets.0.conv1.weight", 0) for block in blocks],
        "layers_per_block": [layers.get(block, 0) for block in blocks],
    }
    if component == "vae":
        return expected | {"latent_channels": _size(tensors, "decoder.conv_in.weight", 1)}
    return expected | _expected_unet(tensors)


def _expected_unet(tensors: Tensors) -> dict[str, Any]:
    expected = {key: _size(tensors, f"{key.removesuffix('_kernel')}.weight", 2) for key in ("conv_in_kernel", "conv_out_kernel")}
    contexts = {info.shape[-1:] for name, info in tensors.items() if name.endswith("attn2.to_k.weight")}
    depths = set(_counts(tensors, r"(.+)\.transformer_blocks\.(\d+)\.").values())
    if len(contexts) == 1 and () not in contexts:
        expected["cross_attention_dim"] = contexts.pop()[0]
    if len(depths) == 1:
        expected["transformer_layers_per_block"] = depths.pop()
    return expected


def _expected_text(tensors: Tensors) -> dict[str, Any]:
    plain = {name.removeprefix("text_model."): info for name, info in tensors.items()}
    return {
        "vocab_size": _size(plain, "embeddings.token_embedding.weight", 0),
        "hidden_size": _size(plain, "embeddings.token_embedding.weight", 1),
        "max_position_embeddings": _size(plain, "embeddings.position_embedding.weight", 0),
        "intermediate_size": _size(plain, "encoder.layers.0.mlp.fc1.weight", 0),
        "num_hidden_layers": _counts(plain, r"(encoder\.layers)\.(\d+)\.").get("encoder.layers", 0),
    }


def _size(tensors: Tensors, name: str, axis: int) -> int:
    shape = tensors[name].shape if name in tensors else ()
    if len(shape) <= axis:
        raise BdauditError(f"the weights lack {name}, or its shape is {list(shape)}; this is not the model that its config names")
    return shape[axis]


def _counts(tensors: Tensors, pattern: str) -> dict[str, int]:
    """How many different second groups of ``pattern`` each first one has."""
    found: dict[str, set[str]] = {}
    for name in tensors:
        if match := re.match(pattern, name, re.ASCII):
            found.setdefault(match[1], set()).add(match[2])
    return {first: len(second) for first, second in found.items()}
