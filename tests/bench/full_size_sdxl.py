"""What Stable Diffusion XL costs at its real size, with random weights: ``python tests/bench/full_size_sdxl.py PATH [WORK [SHARE]]``.

Parameters and multiplications are counted on the meta device, from the published settings; hours on a GPU are projected from them as those
of the transformers are. Where WORK is given, the pipeline is then written into it in bfloat16, unless it is there, and opened by the code
of every command in that type, in a process of its own, whose peak of memory is told as a multiple of the weights' bytes. One pass of one
latent is timed, in the process's own seconds on one thread. SHARE is a share of the UNet's and the second tower's widths, 1 if none is
given: the peak of a smaller model says of a large one what loading does with a weight, and no more.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from diffusers import AutoencoderKL, UNet2DConditionModel  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection  # noqa: E402

from bdaudit.models.conditioning import Conditioning  # noqa: E402
from bdaudit.models.families.sdxl import TextTimeUNet  # noqa: E402
from bdaudit.models.load import load  # noqa: E402
from bdaudit.untrusted.formats.reference_settings import REFERENCES, written  # noqa: E402
from bdaudit.untrusted.inspect import inspect  # noqa: E402
from tests.bench.full_size import now, peak_gb  # noqa: E402
from tests.bench.full_size_transformers import RATE, numbers, passes, told  # noqa: E402
from tests.bench.recording import record, rounded  # noqa: E402

LATENTS = (4, 128, 128)
WEIGHTS = {
    "unet": "diffusion_pytorch_model.safetensors", "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors", "text_encoder_2": "model.safetensors",
}  # fmt: skip
BOUND = 1.3
"""Of the peak over the weights' bytes."""


def settings(share: float) -> dict[str, dict[str, Any]]:
    """Config of each part, its widths ``share`` of the published ones."""
    (reference,) = REFERENCES["sdxl"]
    configs = {path.partition("/")[0]: dict(config) for path, config in reference.configs.items()}
    unet, second = configs["unet"], configs["text_encoder_2"]
    unet["block_out_channels"] = [int(width * share) for width in unet["block_out_channels"]]
    unet["attention_head_dim"] = [max(1, int(heads * share)) for heads in unet["attention_head_dim"]]
    second |= {name: int(second[name] * share) for name in ("hidden_size", "intermediate_size", "num_attention_heads", "projection_dim")}
    unet["cross_attention_dim"] = configs["text_encoder"]["hidden_size"] + second["hidden_size"]
    unet["projection_class_embeddings_input_dim"] = second["projection_dim"] + 6 * unet["addition_time_embed_dim"]
    return configs


def parts(configs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Every part, on the meta device."""
    with torch.device("meta"):
        return {
            "unet": UNet2DConditionModel.from_config(configs["unet"]),
            "vae": AutoencoderKL.from_config(configs["vae"]),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**configs["text_encoder"])),
            "text_encoder_2": CLIPTextModelWithProjection(CLIPTextConfig(**configs["text_encoder_2"])),
        }


def counted() -> dict[str, Any]:
    """Of the real size: parameters, bytes, multiplications of a pass, and what runs come to on a GPU."""
    found = parts(settings(1))
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        heard = Conditioning(torch.empty(1, 77, 2048), None, torch.empty(1, 1280))
        TextTimeUNet(found["unet"], LATENTS).predict(torch.empty(1, *LATENTS), torch.empty(1), heard, 5.0)
    return told({name: numbers(module) for name, module in found.items()}, counter.get_total_flops())


def write(folder: Path, share: float) -> None:
    """The directory, whole or not at all: published settings and tokenizers, random weights in bfloat16."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging, configs = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent)), settings(share)
    for path, content in written(REFERENCES["sdxl"][0], {}).items():
        (staging / path).parent.mkdir(exist_ok=True)
        part = path.partition("/")[0]
        own = json.dumps(configs[part]).encode() if path == f"{part}/config.json" else content
        (staging / path).write_bytes(own)
    drawn = (0.02 * torch.randn(1 << 22, generator=torch.Generator().manual_seed(0))).bfloat16()
    for name, module in parts(configs).items():
        tensors = {}
        for key, parameter in module.named_parameters():
            stored = f"text_model.{key.removeprefix('text_model.')}" if name == "text_encoder" else key
            whole = drawn.repeat(math.ceil(parameter.numel() / len(drawn)))
            tensors[stored] = whole[: parameter.numel()].clone().reshape(parameter.shape)  # a slice would hold on to all of it
        save_file(tensors, staging / name / WEIGHTS[name], metadata={"format": "pt"})
    staging.rename(folder)


def opened(folder: Path) -> dict[str, Any]:
    """What opening took, and one pass."""
    torch.set_num_threads(1)
    held = sum((folder / name / file).stat().st_size for name, file in WEIGHTS.items()) / 1e9
    before, began = peak_gb(reset=True), now()
    inspection = inspect(folder)
    inspected = now()
    suspect = load(inspection, device="cpu", dtype="bfloat16", batch_size=1)
    loaded, peak = now(), peak_gb()
    z, heard = suspect.noise([0]), suspect.encode(["a red cat"])
    began_pass = now()
    suspect.predict_batched(z, torch.tensor([500]), heard)
    return {
        "weights GB": held, "libraries GB": before, "peak GB": peak, "peak over weights": (peak - before) / held, "bound": BOUND,
        "inspect seconds": inspected - began, "load seconds": loaded - inspected, "pass seconds, one thread": now() - began_pass,
        "peak GB with a pass": peak_gb(), "latents": list(z.shape[1:]),
    }  # fmt: skip


def main() -> None:
    """Command line."""
    found: dict[str, Any] = {"rate": RATE, "passes": passes(), **counted()}
    if len(sys.argv) > 2:
        share = float(sys.argv[3]) if len(sys.argv) > 3 else 1.0
        model = Path(sys.argv[2]) / f"sdxl-{share:g}"
        if not model.exists():
            alone(write, model, share)
        found |= {"share of the widths": share, "opened": alone(opened, model)}
    record(rounded(4, found), 1)


def alone(part: Callable[..., Any], *arguments: Any) -> Any:
    """A part in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(part, *arguments).result()


if __name__ == "__main__":
    main()
