"""What diffusion transformers cost at their real size, on the meta device: ``python tests/bench/full_size_transformers.py [PATH]``.

Nothing is allocated: each denoiser is built from its published settings without memory and asked for one prediction of one latent at its
pipeline's size, as a probe asks it, while torch's counter adds up the multiplications. Seconds are projected, not measured: floating-point
operations over ``RATE``, which is 40 % of what one H200 does in bfloat16, times the passes that a run's settings come to.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from diffusers import FluxTransformer2DModel, PixArtTransformer2DModel, SD3Transformer2DModel  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel  # noqa: E402

from bdaudit.config.effort import EFFORTS  # noqa: E402
from bdaudit.measure.draws import STEPS  # noqa: E402
from bdaudit.models.conditioning import Conditioning  # noqa: E402
from bdaudit.models.families.flux import TextFirst  # noqa: E402
from bdaudit.models.families.pixart import CrossAttentionTransformer  # noqa: E402
from bdaudit.models.families.sd3 import PictureFirst  # noqa: E402
from bdaudit.scan.builtin import builtin_candidates  # noqa: E402
from bdaudit.scan.opening import SETTINGS  # noqa: E402
from bdaudit.scan.sweep.single_texts import ROUNDS, SHARE  # noqa: E402
from tests.bench.recording import record, rounded  # noqa: E402

RATE = 0.4 * 790e12
"""Floating-point operations a second."""
GOES_ON, FOLLOWED = 0.15, 0.05
"""Shares of a list's texts that are measured on all draws, and along paths, as ``scan.tiers`` aims at."""
KINDS, T5_ENTRIES = 6, 32_100

L = {"vocab_size": 49_408, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
G = {"vocab_size": 49_408, "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
XXL = {"vocab_size": 32_128, "d_model": 4096, "d_kv": 64, "d_ff": 10_240, "num_layers": 24, "num_heads": 64}
T5 = T5Config(**XXL, feed_forward_proj="gated-gelu")


@dataclass(frozen=True)
class Full:
    """One model."""

    readers: tuple[Callable[[], Any], ...]
    denoiser: Callable[[], Any]
    shape: tuple[int, int, int]
    text: tuple[int, int]
    """Tokens and width of the states."""
    pooled: int = 0


def clip(config: dict[str, int], projection: int = 0) -> Any:
    kind = CLIPTextModelWithProjection if projection else CLIPTextModel
    return kind(CLIPTextConfig(**config, projection_dim=projection or 512))


SD3_READERS = (lambda: clip(L, 768), lambda: clip(G, 1280), lambda: T5EncoderModel(T5))


def sd3(layers: int, dual: tuple[int, ...]) -> Any:
    return SD3Transformer2DModel(
        num_layers=layers, num_attention_heads=layers, caption_projection_dim=64 * layers, qk_norm="rms_norm", dual_attention_layers=dual,
        pos_embed_max_size=192, joint_attention_dim=4096, pooled_projection_dim=2048,
    )  # fmt: skip


MODELS = {
    "FLUX.1 dev": Full(
        (lambda: clip(L), lambda: T5EncoderModel(T5)),
        lambda: TextFirst(FluxTransformer2DModel(guidance_embeds=True), (16, 128, 128), 512),
        (16, 128, 128), (512, 4096), 768,
    ),
    "Stable Diffusion 3.5 large": Full(
        SD3_READERS, lambda: PictureFirst(sd3(38, ()), (16, 128, 128), 333), (16, 128, 128), (333, 4096), 2048,
    ),
    "Stable Diffusion 3.5 medium": Full(
        SD3_READERS, lambda: PictureFirst(sd3(24, tuple(range(13))), (16, 128, 128), 333), (16, 128, 128), (333, 4096), 2048,
    ),
    "PixArt-Σ": Full(
        (lambda: T5EncoderModel(T5),),
        lambda: CrossAttentionTransformer(
            PixArtTransformer2DModel(caption_channels=4096, use_additional_conditions=False, interpolation_scale=2), (4, 128, 128)
        ),
        (4, 128, 128), (300, 4096),
    ),
}  # fmt: skip


def numbers(module: Any) -> int:
    return sum(p.numel() for p in module.parameters())


def passes() -> dict[str, int]:
    """Forward passes of default runs: a list with its controls, and the vocabulary of T5."""
    spent = EFFORTS["standard"]
    controls = KINDS * SETTINGS.per_kind + SETTINGS.prompt_words
    texts = controls + len(builtin_candidates())
    each = spent.first + GOES_ON * (spent.draws - spent.first) + FOLLOWED * (spent.paths * spent.steps + spent.context)
    own = spent.draws * (2 * STEPS + 2) + 2 * spent.draws * spent.steps
    swept = T5_ENTRIES * ROUNDS[0].draws + T5_ENTRIES // SHARE * ROUNDS[1].draws
    return {"scan, built-in list": round(texts * each + own), "scan --sweep vocabulary": round(swept + controls * each + own)}


def measured(model: Full) -> dict[str, Any]:
    """Parameters, bytes, operations a pass, and what runs come to."""
    with torch.device("meta"):
        readers, denoiser = [make() for make in model.readers], model.denoiser()
        latents, t = torch.empty(1, *model.shape), torch.empty(1)
        mask = torch.ones(1, model.text[0], dtype=torch.long) if not model.pooled else None
        heard = Conditioning(torch.empty(1, *model.text), mask, torch.empty(1, model.pooled) if model.pooled else None)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            denoiser.predict(latents, t, heard, 3.5)
    return told({"denoiser": numbers(denoiser.module), "readers": sum(map(numbers, readers))}, counter.get_total_flops())


def told(each: dict[str, int], operations: int) -> dict[str, Any]:
    """Parameters and bytes of each part, operations a pass, and what runs come to."""
    return {
        "parameters": each,
        "GB in bfloat16": {name: 2 * n / 1e9 for name, n in each.items()},
        "TFLOP a pass of one latent": operations / 1e12,
        "seconds a pass, projected": operations / RATE,
        "hours, projected": {name: n * operations / RATE / 3600 for name, n in passes().items()},
    }


if __name__ == "__main__":
    record(rounded(4, {"rate": RATE, "passes": passes(), **{name: measured(model) for name, model in MODELS.items()}}), 1)
