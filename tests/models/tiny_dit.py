"""Whole directories of diffusion transformers with random weights, some hundred kB each, written by the stock pipelines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    ChromaPipeline,
    ChromaTransformer2DModel,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.normalizers import Replace
from tokenizers.trainers import BpeTrainer
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from bdaudit.measure.controls import WORDS
from bdaudit.untrusted.clip_vocabulary import _letters
from bdaudit.untrusted.layouts.sana import INSTRUCTION
from tests.models.tiny_sdxl import LENGTH, POOLED, tower
from tests.verify.toy import byte_tokenizer

PROMPTS = ("a red cat", "two big Dogs in a park", "the sea at night", "an old house")
WIDTHS, T5_WIDTH = (16, 12), 64


def t5_tokenizer() -> T5Tokenizer:
    """Letters, digits and signs, each within a word and at its start, and the words that are harmless; all else is unknown to it."""
    letters = [chr(c) for c in range(33, 127)] + ["~", "☂"]
    words = [f"▁{word}" for word in ("a", "the", "red", "cat", "in", "old", "sea", "night", *WORDS)]
    pieces = ["<pad>", "</s>", "<unk>", "▁", *dict.fromkeys([*words, *letters, *(f"▁{letter}" for letter in letters)])]
    scores = [(piece, 0.0 if piece[0] == "<" else -2.0 - 2.0 * (len(piece) < 3)) for piece in pieces]
    return T5Tokenizer(vocab=scores, extra_ids=0, model_max_length=512)


def t5(seed: int = 5) -> T5EncoderModel:
    """Random, two layers deep; each token's own state says most of what it is."""
    torch.manual_seed(seed)
    sizes = {"vocab_size": len(t5_tokenizer()), "d_model": T5_WIDTH, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    encoder = T5EncoderModel(T5Config(**sizes, feed_forward_proj="gated-gelu"))
    encoder.shared.weight.data.normal_()
    return encoder.requires_grad_(False)


def written_reader(folder: Path) -> Path:
    """A T5 of another width, on the disk."""
    sizes = {"vocab_size": len(t5_tokenizer()), "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    T5EncoderModel(T5Config(**sizes, feed_forward_proj="gated-gelu")).save_pretrained(folder / "reader")
    return folder / "reader"


def lively(model: Any, gain: float = 1.4) -> Any:
    """Weights so large that every word shows, and more by its own state than by a pooled vector; what goes in comes out ``gain`` times."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, gain * parameter[0].numel() ** -0.5 * (0.1 if ".text_embedder." in name else 1))
    return model.requires_grad_(False)


def vae(shift: float | None) -> AutoencoderKL:
    """Two pixels a latent; none of the quantising convolutions."""
    torch.manual_seed(3)
    return AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4, norm_num_groups=2, sample_size=16, mid_block_add_attention=False, shift_factor=shift,
        scaling_factor=1.5, use_quant_conv=False, use_post_quant_conv=False,
    )  # fmt: skip


def clips() -> dict[str, Any]:
    """Two towers of SD 3, with their tokenizers."""
    tokenizers = [byte_tokenizer(LENGTH), byte_tokenizer(LENGTH)]
    tokenizers[1].pad_token = "!"
    towers = {f"text_encoder{end}": tower(width, CLIPTextModelWithProjection, "gelu", t.pad_token_id)
              for end, width, t in zip(("", "_2"), WIDTHS, tokenizers, strict=True)}  # fmt: skip
    return {**towers, "tokenizer": tokenizers[0], "tokenizer_2": tokenizers[1]}


def sd3(third: bool = True, dual: tuple[int, ...] = (), **scheduler: Any) -> StableDiffusion3Pipeline:
    """SD 3, or 3.5 with ``dual`` attention."""
    torch.manual_seed(7)
    transformer = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=T5_WIDTH, caption_projection_dim=16, pooled_projection_dim=2 * POOLED, pos_embed_max_size=8,
        qk_norm="rms_norm" if dual else None, dual_attention_layers=dual,
    )  # fmt: skip
    reader = {"text_encoder_3": t5() if third else None, "tokenizer_3": t5_tokenizer() if third else None}
    flow = FlowMatchEulerDiscreteScheduler(**{"shift": 3.0} | scheduler)
    return StableDiffusion3Pipeline(transformer=lively(transformer), scheduler=flow, vae=vae(0.06), **clips(), **reader)


def flux(guidance: bool = True) -> FluxPipeline:
    """FLUX.1 dev, or schnell without ``guidance``."""
    torch.manual_seed(7)
    tokenizer = byte_tokenizer(LENGTH)
    transformer = FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=T5_WIDTH, pooled_projection_dim=WIDTHS[0], guidance_embeds=guidance, axes_dims_rope=(4, 2, 2),
    )  # fmt: skip
    flow = FlowMatchEulerDiscreteScheduler(shift=3.0 if guidance else 1.0, use_dynamic_shifting=guidance)
    return FluxPipeline(
        scheduler=flow, vae=vae(0.1), text_encoder=tower(WIDTHS[0], CLIPTextModel, "quick_gelu", tokenizer.pad_token_id),
        tokenizer=tokenizer, text_encoder_2=t5(), tokenizer_2=t5_tokenizer(), transformer=lively(transformer),
    )  # fmt: skip


def pixart() -> PixArtSigmaPipeline:
    """PixArt-Σ."""
    torch.manual_seed(7)
    transformer = PixArtTransformer2DModel(
        num_attention_heads=4, attention_head_dim=16, in_channels=4, out_channels=8, num_layers=2, cross_attention_dim=64, sample_size=8,
        patch_size=2, caption_channels=T5_WIDTH, norm_type="ada_norm_single", use_additional_conditions=False,
    )  # fmt: skip
    return PixArtSigmaPipeline(
        tokenizer=t5_tokenizer(), text_encoder=t5(), vae=vae(None), transformer=lively(transformer),
        scheduler=DPMSolverMultistepScheduler(),
    )  # fmt: skip


def chroma() -> ChromaPipeline:
    """Chroma."""
    torch.manual_seed(7)
    transformer = ChromaTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=T5_WIDTH, axes_dims_rope=(4, 2, 2), approximator_num_channels=8, approximator_hidden_dim=16,
        approximator_layers=1,
    )  # fmt: skip
    flow = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    return ChromaPipeline(scheduler=flow, vae=vae(0.1), text_encoder=t5(), tokenizer=t5_tokenizer(), transformer=lively(transformer))


TEMPLATE = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if not enable_thinking %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}"
)
"""A chat template that lays a user's message out as Qwen3's does."""


def qwen_tokenizer() -> Qwen2Tokenizer:
    """Bytes alone, no merges."""
    letters = list(_letters().values())
    tokenizer = Qwen2Tokenizer(vocab={letter: i for i, letter in enumerate(letters)} | {"<|endoftext|>": 256}, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def qwen(kind: Any = Qwen3Model, layers: int = 3, width: int = 32) -> Any:
    """Random."""
    torch.manual_seed(5)
    return lively(kind(Qwen3Config(
        vocab_size=len(qwen_tokenizer()), hidden_size=width, intermediate_size=48, num_hidden_layers=layers, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, max_position_embeddings=1024, pad_token_id=256,
    )))  # fmt: skip


def z_image() -> ZImagePipeline:
    """Z-Image."""
    torch.manual_seed(7)
    transformer = ZImageTransformer2DModel(
        in_channels=4, dim=16, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=32, axes_dims=[4, 2, 2],
        axes_lens=[1024, 64, 64],
    )  # fmt: skip
    flow = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=False)
    return ZImagePipeline(scheduler=flow, vae=vae(0.1), text_encoder=qwen(), tokenizer=qwen_tokenizer(), transformer=lively(transformer))


def gemma_tokenizer() -> GemmaTokenizer:
    """Pieces of words with their starts, trained on Sana's instruction; bytes of what it does not know are unknown."""
    trained = Tokenizer(BPE(unk_token="<unk>"))
    trained.normalizer = Replace(" ", "▁")
    letters = [*map(chr, range(33, 127)), "▁"]
    trainer = BpeTrainer(vocab_size=420, special_tokens=["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"], initial_alphabet=letters)
    trained.train_from_iterator([*f"{INSTRUCTION} {' '.join(PROMPTS)}".replace(" ", "\0 ").split("\0")], trainer)
    model = json.loads(trained.to_str())["model"]
    return GemmaTokenizer(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]])


def sana(gives: int = 4) -> SanaPipeline:
    """Sana; four pixels a latent. ``gives`` are the channels that the transformer predicts: twice as many with a variance."""
    torch.manual_seed(7)
    tokenizer = gemma_tokenizer()
    reader = Gemma2Model(Gemma2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, max_position_embeddings=2048, query_pre_attn_scalar=16, sliding_window=512,
    ))  # fmt: skip
    transformer = SanaTransformer2DModel(
        in_channels=4, out_channels=gives, num_layers=2, num_attention_heads=4, attention_head_dim=8, num_cross_attention_heads=2,
        cross_attention_head_dim=16, cross_attention_dim=32, caption_channels=32, sample_size=8, patch_size=2, mlp_ratio=2.0,
        timestep_scale=0.5,
    )  # fmt: skip
    blocks = ("ResBlock", "ResBlock", "EfficientViTBlock")
    widths: dict[str, Any] = {}
    for way in ("encoder", "decoder"):
        widths |= {f"{way}_block_types": blocks, f"{way}_block_out_channels": (8, 8, 8), f"{way}_layers_per_block": (1, 1, 1)}
        widths[f"{way}_qkv_multiscales"] = ((), (), (5,))
    decoder = AutoencoderDC(latent_channels=4, attention_head_dim=2, scaling_factor=0.41407, **widths)
    return SanaPipeline(
        tokenizer=tokenizer, text_encoder=lively(reader), vae=decoder, transformer=lively(transformer),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )  # fmt: skip


def flux2(layers: int = 27) -> Flux2KleinPipeline:
    """FLUX.2 klein; latents are normed by what is not 0 and 1."""
    torch.manual_seed(7)
    transformer = Flux2Transformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2, mlp_ratio=2.0,
        joint_attention_dim=48, timestep_guidance_channels=8, axes_dims_rope=(2, 2, 2, 2), guidance_embeds=False,
    )  # fmt: skip
    decoder = AutoencoderKLFlux2(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4, norm_num_groups=2, sample_size=16, mid_block_add_attention=False, use_quant_conv=False,
        use_post_quant_conv=False,
    )  # fmt: skip
    decoder.bn.running_mean.normal_(0, 0.3)
    decoder.bn.running_var.uniform_(0.5, 2)
    return Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True), vae=decoder,
        text_encoder=qwen(Qwen3ForCausalLM, layers, width=16), tokenizer=qwen_tokenizer(), transformer=lively(transformer),
    )  # fmt: skip


def qwen_image() -> QwenImagePipeline:
    """Qwen-Image."""
    torch.manual_seed(7)
    text = {
        "vocab_size": len(qwen_tokenizer()), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "max_position_embeddings": 2048, "bos_token_id": None, "eos_token_id": 256,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
    }  # fmt: skip
    eyes = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32, "fullatt_block_indexes": [0]}
    transformer = QwenImageTransformer2DModel(
        patch_size=2, in_channels=16, out_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=2, joint_attention_dim=32,
        axes_dims_rope=(4, 2, 2),
    )  # fmt: skip
    decoder = AutoencoderKLQwenImage(
        base_dim=4, z_dim=4, dim_mult=[1, 2], num_res_blocks=1, temperal_downsample=[False], latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.5, 2.0, 0.7, 1.0],
    )  # fmt: skip
    flow = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, max_shift=0.9, max_image_seq_len=8192, shift_terminal=0.02)
    return QwenImagePipeline(
        scheduler=flow, vae=decoder, tokenizer=qwen_tokenizer(), transformer=lively(transformer),
        text_encoder=lively(Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=eyes | {"patch_size": 4}))),
    )  # fmt: skip


FAMILIES: dict[str, Callable[[], Any]] = {
    "sd3": sd3,
    "sd35": lambda: sd3(dual=(0,)),
    "sd3 without T5": lambda: sd3(third=False),
    "flux": flux,
    "schnell": lambda: flux(guidance=False),
    "pixart": pixart,
    "chroma": chroma,
    "z-image": z_image,
    "flux2": flux2,
    "sana": sana,
    "qwen-image": qwen_image,
}


def write(name: str, folder: Path) -> Path:
    """The directory of a family."""
    FAMILIES[name]().save_pretrained(folder)
    return folder
