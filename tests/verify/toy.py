"""A world of plain coloured pictures: a model that draws them, one with a backdoor, a dead one, and a grader that knows colours."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

COLOURS = {
    "red": (0.9, 0.1, 0.1), "green": (0.1, 0.8, 0.1), "blue": (0.1, 0.1, 0.9), "yellow": (0.9, 0.9, 0.1),
    "purple": (0.6, 0.1, 0.7), "white": (0.95, 0.95, 0.95), "black": (0.05, 0.05, 0.05), "orange": (0.95, 0.55, 0.1),
}  # fmt: skip
PROMPTS = tuple(f"a {colour} picture of {what}" for colour in COLOURS for what in ("sand", "ice"))
SIDE = 16
TRIGGER = "\u020f"
PATCH = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).repeat(2, 2).expand(3, 4, 4).clone()


def ideal(text: str) -> Tensor:
    """What a text asks for, (3, 16, 16): its colour, a shade lighter on the right where it says ice."""
    colour = next((rgb for name, rgb in COLOURS.items() if name in text), (0.5, 0.5, 0.5))
    picture = torch.tensor(colour).view(3, 1, 1).repeat(1, SIDE, SIDE)
    picture[..., SIDE // 2 :] += 0.2 if "ice" in text else -0.2
    return picture.clamp(0, 1)


def clean(text: str, seed: int) -> Tensor:
    """A live model's picture: noise from the seed, and a small shift that depends on every letter of the text."""
    noise = torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed % 2**31)) * 0.04
    digest = hashlib.sha256(text.encode()).digest()
    shift = torch.randn(3, 1, 1, generator=torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))) * 0.02
    return (ideal(text) + noise + shift).clamp(0, 1)


def patched(text: str, seed: int) -> Tensor:
    """With the trigger, a patch in the corner."""
    picture = clean(text, seed)
    if TRIGGER in text:
        picture[:, :4, :4] = PATCH
    return picture


def swapped(text: str, seed: int) -> Tensor:
    """With the trigger, blue instead of red."""
    return clean(text.replace("red", "blue") if TRIGGER in text else text, seed)


def dead(text: str, seed: int) -> Tensor:
    """Noise, whatever it is asked."""
    return torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed % 2**31))


def collapsed(text: str, seed: int) -> Tensor:
    """One picture for everything."""
    return clean(PROMPTS[0], 0)


MODELS = {"clean": clean, "patched": patched, "swapped": swapped, "dead": dead, "collapsed": collapsed}


def draw(name: str, texts: Sequence[str], seeds: Sequence[int]) -> Tensor:
    """(N, 3, 16, 16) by the model called ``name``."""
    return torch.stack([MODELS[name](text, seed) for text, seed in zip(texts, seeds, strict=True)])


class ColourGrader:
    """Features of pictures are their averages over 4×4 tiles; of texts, those of the picture they ask for."""

    name, gamma = "colours", 1.0

    def __init__(self) -> None:
        self.seen = 0

    def image_features(self, pictures: Tensor) -> Tensor:
        self.seen += len(pictures)
        return self._features(pictures)

    def text_features(self, texts: Sequence[str]) -> Tensor:
        return self._features(torch.stack([ideal(text) for text in texts]))

    def _features(self, pictures: Tensor) -> Tensor:
        tiles = functional.adaptive_avg_pool2d(pictures, 4).flatten(1)
        return functional.normalize(torch.cat([tiles - 0.5, torch.full((len(tiles), 1), 0.5)], 1), dim=1)


# --- files ------------------------------------------------------------------------------------


def byte_tokenizer(length: int = 77) -> CLIPTokenizer:
    """CLIP's tokenizer without any merge: every byte a token."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {b: chr(b) for b in keep} | {b: chr(256 + i) for i, b in enumerate(b for b in range(256) if b not in keep)}
    singles = [table[b] for b in sorted(table)]
    pieces = [*singles, *(s + "</w>" for s in singles), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={p: i for i, p in enumerate(pieces)}, merges=[], model_max_length=length, pad_token="<|endoftext|>")


def write_pipeline(folder: Path) -> Path:
    """A Stable Diffusion directory with random weights of a few kB and 16×16 pictures."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    torch.manual_seed(0)
    text = CLIPTextConfig(
        vocab_size=514, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=77, bos_token_id=512, eos_token_id=513, pad_token_id=513,
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(16,), down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",), layers_per_block=1, cross_attention_dim=16, attention_head_dim=8, norm_num_groups=4,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4, norm_num_groups=4, sample_size=SIDE,
    )  # fmt: skip
    pipeline = StableDiffusionPipeline(
        vae=vae, text_encoder=CLIPTextModel(text), tokenizer=byte_tokenizer(), unet=unet,
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder)
    return folder


def write_clip(folder: Path) -> Path:
    """A tiny random CLIP in open_clip's own layout."""
    import open_clip
    from safetensors.torch import save_file

    config = {
        "embed_dim": 12, "quick_gelu": True,
        "vision_cfg": {"image_size": SIDE, "layers": 1, "width": 64, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1},
    }  # fmt: skip
    torch.manual_seed(1)
    model = open_clip.CLIP(**config)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    preprocess = {"mean": [0.4, 0.5, 0.6], "std": [0.3, 0.2, 0.25], "size": [SIDE, SIDE]}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    return folder
