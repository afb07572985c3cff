"""The settings of each part are those that the installed libraries' constructors read, with ranges that take what people deploy."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from bdaudit.untrusted.layouts.autoencoder import AUTOENCODER
from bdaudit.untrusted.layouts.clip import TOKENIZER, TOWER
from bdaudit.untrusted.layouts.layout import Part
from bdaudit.untrusted.layouts.schedulers import SCHEDULER
from bdaudit.untrusted.layouts.unet import UNET
from bdaudit.untrusted.settings import check_settings

DOWN, UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
WIDTHS = [320, 640, 1280, 1280]
DEPLOYED: dict[str, tuple[Part, dict[str, Any]]] = {
    "UNet 1.5": (UNET, {"block_out_channels": WIDTHS, "down_block_types": [DOWN] * 3 + ["DownBlock2D"], "attention_head_dim": 8}),
    "UNet 2.1": (UNET, {"attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024, "sample_size": 96, "upcast_attention": None}),
    "UNet of SDXL": (
        UNET,
        {"transformer_layers_per_block": [1, 2, 10], "cross_attention_dim": 2048, "projection_class_embeddings_input_dim": 2816},
    ),
    "UNet of SSD-1B": (UNET, {"reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], 1], "addition_time_embed_dim": 256}),
    "UNet, distilled": (UNET, {"layers_per_block": 1, "mid_block_type": None, "time_cond_proj_dim": 256, "norm_num_groups": None}),
    "VAE of SDXL": (
        AUTOENCODER,
        {"block_out_channels": [128, 256, 512, 512], "sample_size": 1024, "scaling_factor": 0.13025, "latents_mean": None},
    ),
    "VAE of FLUX": (AUTOENCODER, {"latent_channels": 16, "shift_factor": 0.1159, "use_quant_conv": False, "scaling_factor": 0.3611}),
    "CLIP-L": (TOWER, {"hidden_size": 768, "intermediate_size": 3072, "vocab_size": 49_408, "hidden_act": "quick_gelu", "eos_token_id": 2}),
    "CLIP-G": (TOWER, {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}),
    "a tower as wide as T5-XXL": (TOWER, {"hidden_size": 4096, "intermediate_size": 10_240, "vocab_size": 256_000}),
    "DPM-Solver": (
        SCHEDULER,
        {"algorithm_type": "dpmsolver++", "lambda_min_clipped": -float("inf"), "solver_order": 2, "variance_type": None},
    ),
    "PNDM": (SCHEDULER, {"steps_offset": 1, "skip_prk_steps": True, "trained_betas": None, "beta_schedule": "scaled_linear"}),
    "CLIP's tokenizer": (TOKENIZER, {"model_max_length": 77, "add_prefix_space": False, "do_lower_case": True, "errors": "replace"}),
    "a tokenizer without a length": (TOKENIZER, {"model_max_length": 10**30, "additional_special_tokens": ["<|a|>"]}),
}


@pytest.mark.parametrize("name", DEPLOYED)
def test_what_people_deploy_is_in_range(name: str) -> None:
    part, config = DEPLOYED[name]
    assert set(config) <= part.settings.keys()
    check_settings(config, part.settings, name)


WIDE: list[tuple[Part, str, Any, Any]] = [
    (UNET, "downsample_padding", 8, 9),
    (UNET, "block_out_channels", [16_384] * 8, [16_385]),
    (UNET, "block_out_channels", [1] * 8, [1] * 9),
    (UNET, "cross_attention_dim", 16_384, 16_385),
    (UNET, "transformer_layers_per_block", [16, [16]], 17),
    (UNET, "layers_per_block", 8, 9),
    (UNET, "conv_in_kernel", 31, 32),
    (UNET, "sample_size", [256, 1], [256, 257]),
    (UNET, "num_class_embeds", 16_384, 10**12),
    (AUTOENCODER, "scaling_factor", 1e-4, 0),
    (AUTOENCODER, "latent_channels", 1024, 1025),
    (TOWER, "hidden_size", 16_384, 16_385),
    (TOWER, "intermediate_size", 65_536, 65_537),
    (TOWER, "num_hidden_layers", 128, 129),
    (SCHEDULER, "num_train_timesteps", 100_000, 100_001),
    (SCHEDULER, "trained_betas", [0.5] * 100_000, [2]),
    (TOKENIZER, "model_max_length", 3, 2),
]


@pytest.mark.parametrize(("part", "key", "last", "beyond"), WIDE, ids=lambda each: each if isinstance(each, str) else "")
def test_ranges_end_where_they_say(part: Part, key: str, last: Any, beyond: Any) -> None:
    assert part.settings[key].fits(last)
    assert not part.settings[key].fits(beyond)


RANGES: dict[str, tuple[Part, float, float, tuple[str, ...]]] = {
    "a UNet's widths": (
        UNET,
        1,
        16_384,
        (
            *("attention_head_dim", "num_attention_heads", "cross_attention_dim", "norm_num_groups", "encoder_hid_dim"),
            *("addition_time_embed_dim", "num_class_embeds", "time_cond_proj_dim", "projection_class_embeddings_input_dim"),
        ),
    ),
    "its time embedding": (UNET, 1, 65_536, ("time_embedding_dim",)),
    "its channels": (UNET, 1, 1024, ("in_channels", "out_channels", "addition_embed_type_num_heads")),
    "its kernels": (UNET, 1, 31, ("conv_in_kernel", "conv_out_kernel")),
    "its scales": (UNET, 1e-4, 1e4, ("mid_block_scale_factor", "resnet_out_scale_factor")),
    "its shares": (UNET, 0, 1, ("freq_shift", "dropout", "norm_eps")),
    "its padding": (UNET, 0, 8, ("downsample_padding",)),
    "its layers": (UNET, 1, 8, ("layers_per_block",)),
    "its depths": (UNET, 1, 16, ("transformer_layers_per_block", "reverse_transformer_layers_per_block")),
    "its latents": (UNET, 1, 256, ("sample_size",)),
    "an autoencoder's layers": (AUTOENCODER, 1, 8, ("layers_per_block",)),
    "its groups and pictures": (AUTOENCODER, 1, 16_384, ("norm_num_groups", "sample_size")),
    "its own channels": (AUTOENCODER, 1, 1024, ("in_channels", "out_channels", "latent_channels")),
    "its scale": (AUTOENCODER, 1e-4, 1e4, ("scaling_factor",)),
    "its shift": (AUTOENCODER, -1e4, 1e4, ("shift_factor",)),
    "a tower's widths": (TOWER, 1, 16_384, ("hidden_size", "max_position_embeddings")),
    "its inner width": (TOWER, 1, 65_536, ("intermediate_size",)),
    "its words": (TOWER, 1, 2_000_000, ("vocab_size",)),
    "its own tokens": (TOWER, -1, 2_000_000, ("pad_token_id", "bos_token_id", "eos_token_id")),
    "its own layers": (TOWER, 1, 128, ("num_hidden_layers",)),
    "its heads": (TOWER, 1, 1024, ("num_attention_heads",)),
    "its projection": (TOWER, 0, 16_384, ("projection_dim",)),
    "its own shares": (TOWER, 0, 1, ("layer_norm_eps", "attention_dropout")),
    "a schedule's steps": (SCHEDULER, 1, 100_000, ("num_train_timesteps", "original_inference_steps")),
    "its offset": (SCHEDULER, -100_000, 100_000, ("steps_offset",)),
    "its orders": (SCHEDULER, 1, 8, ("solver_order", "predictor_order", "corrector_order")),
    "its noise": (SCHEDULER, 0, 1, ("beta_start", "beta_end", "dynamic_thresholding_ratio")),
    "its amounts": (
        SCHEDULER,
        -1e6,
        1e6,
        ("sigma_min", "sigma_max", "shift_terminal", "clip_sample_range", "sample_max_value", "timestep_scaling", "flow_shift"),
    ),
    "its seed": (SCHEDULER, 0, 2**63, ("noise_sampler_seed",)),
}


@pytest.mark.parametrize("name", RANGES)
def test_each_range_ends_where_it_says_on_both_sides(name: str) -> None:
    part, least, most, keys = RANGES[name]
    step = 1 if isinstance(least, int) and part.settings[keys[0]].expected.startswith("a whole") else 1e-3 * least or 1e-3
    for key in keys:
        fits = part.settings[key].fits
        assert fits(least), f"{key}: {least}"
        assert fits(most), f"{key}: {most}"
        assert not fits(least - abs(step)), f"{key}: {least - abs(step)}"
        assert not fits(most + abs(step)), f"{key}: {most + abs(step)}"


LISTS: list[tuple[Part, str, Any, int]] = [
    (UNET, "block_out_channels", 1, 8),
    (UNET, "only_cross_attention", True, 8),
    (UNET, "layers_per_block", 1, 8),
    (UNET, "transformer_layers_per_block", [1] * 9, 8),
    (UNET, "cross_attention_dim", 1, 8),
    (UNET, "down_block_types", "A", 8),
    (AUTOENCODER, "block_out_channels", 16_384, 8),
    (AUTOENCODER, "up_block_types", "A", 8),
    (AUTOENCODER, "latents_mean", 1e4, 1024),
    (TOWER, "eos_token_id", -1, 64),
    (SCHEDULER, "trained_betas", 1, 100_000),
    (SCHEDULER, "disable_corrector", 100_000, 100_000),
]


@pytest.mark.parametrize(("part", "key", "item", "most"), LISTS, ids=lambda each: each if isinstance(each, str) else "")
def test_each_list_ends_where_it_says(part: Part, key: str, item: Any, most: int) -> None:
    assert part.settings[key].fits([item] * most)
    assert not part.settings[key].fits([item] * (most + 1))


@pytest.mark.parametrize("part", [UNET, AUTOENCODER], ids=["unet", "vae"])
def test_a_size_is_one_side_or_two(part: Part) -> None:
    fits = part.settings["sample_size"].fits
    assert fits([8, 8])
    assert not fits([8])
    assert not fits([8] * 3)


def test_depths_are_one_a_layer_at_most() -> None:
    fits = UNET.settings["reverse_transformer_layers_per_block"].fits
    assert fits([[16] * 9])
    assert not fits([[16] * 10])
    assert not fits([[17]])


def read_by(*classes: Any) -> dict[str, inspect.Parameter]:
    each = (inspect.signature(cls.__init__).parameters for cls in classes)
    return {name: p for parameters in each for name, p in parameters.items() if name not in ("self", "args", "kwargs", "dtype")}


@pytest.mark.parametrize("part", [UNET, AUTOENCODER, SCHEDULER], ids=["unet", "vae", "scheduler"])
def test_no_setting_of_the_installed_diffusers_is_forgotten(part: Part) -> None:
    import diffusers

    read = read_by(*(getattr(diffusers, name) for name in part.classes))
    assert set(part.settings) - {"noise_sampler_seed"} == set(read), "that one is read only where torchsde is installed"
    for name, parameter in read.items():
        default = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
        assert part.settings[name].fits(default), f"{name}: diffusers' own default, {default!r}, is refused"


def test_no_setting_of_the_installed_transformers_is_forgotten() -> None:
    from transformers import CLIPTextConfig

    read = read_by(CLIPTextConfig)
    assert set(TOWER.settings) <= set(read) <= set(TOWER.settings) | TOWER.idle
    assert all(TOWER.settings[name].fits(read[name].default) for name in TOWER.settings)
