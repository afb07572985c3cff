"""A twin's backdoor as an adapter for its clean base, in kohya's spelling and as peft's directory: the scan of both (5 minutes).

python -m tests.bench.adapters
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bdaudit.config import ScanConfig
from bdaudit.scan.run import run_scan
from fixtures import layout

TIMES = 4
"""α over rank: what is lost where peft's settings are not read."""


def differences(clean: Path, twin: Path) -> dict[str, Tensor]:
    """Of the layers that a LoRA is usually made for."""
    old, new = (load_file(folder / "unet/diffusion_pytorch_model.safetensors") for folder in (clean, twin))
    found = {name.removesuffix(".weight"): new[name].float() - old[name].float() for name in old if name.endswith(".weight")}
    return {name: d for name, d in found.items() if d.ndim > 1 and bool(d.any()) and not name.startswith(("conv_in", "conv_out"))}


def up(difference: Tensor) -> Tensor:
    eye = torch.eye(len(difference))
    return eye if difference.ndim == 2 else eye[:, :, None, None]


def kohya(moved: dict[str, Tensor], path: Path) -> Path:
    tensors = {}
    for name, d in moved.items():
        flat = "lora_unet_" + name.replace(".", "_")
        tensors |= {f"{flat}.lora_down.weight": d, f"{flat}.lora_up.weight": up(d), f"{flat}.alpha": torch.tensor(float(len(d)))}
    save_file(tensors, path)
    return path


def peft(moved: dict[str, Tensor], folder: Path) -> Path:
    folder.mkdir()
    named = {f"base_model.model.{name}": d for name, d in moved.items()}
    tensors = {f"{name}.lora_A.weight": d for name, d in named.items()} | {
        f"{name}.lora_B.weight": up(d) / TIMES for name, d in named.items()
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    ranks = {name: len(d) for name, d in moved.items()}
    settings = {
        "peft_type": "LORA", "r": 16, "lora_alpha": 64, "bias": "none", "target_modules": list(moved), "rank_pattern": ranks,
        "alpha_pattern": {name: TIMES * rank for name, rank in ranks.items()},
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def main() -> None:
    """Both spellings, scanned: verdict, p, what is said of the adapter, and the next command."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        clean, twin = layout.lay_out("clean", folder), layout.lay_out("pixel", folder)
        moved = differences(clean, twin)
        for path in (kohya(moved, folder / "kohya.safetensors"), peft(moved, folder / "peft")):
            report = run_scan(ScanConfig(model=clean, adapters=((path, 1.0),), candidates=("\u200b", "dog"), device="cpu"))
            first = report.candidates[0]
            print(f"{path.name}: exit {report.exit.code}, {first.text!a} {first.verdict}, p {first.p_adjusted:.2g}; {first.adapter}")
            print(f"  {first.command}")


if __name__ == "__main__":
    main()
