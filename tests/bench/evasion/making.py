"""From an attacker to a model directory: its weights in float32, everything else as the clean fixture has it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from fixtures.layout import WEIGHTS, lay_out
from tests.bench.evasion.attackers import Attacker
from tests.bench.evasion.encoders import Encoder, Written, trained, written
from tests.bench.evasion.lessons import lesson
from tests.bench.evasion.training import Recipe, teach
from tests.bench.power.models import FIXTURES


def make(attacker: Attacker, work: Path) -> Path:
    """The model's directory under ``work``, made unless it is there."""
    out = work / attacker.name
    if out.exists():
        return out
    began = time.monotonic()
    clean, start = (lay_out(name, FIXTURES / "models") for name in ("clean", attacker.start))
    changed = _changed(attacker, clean, start, work)
    told = {**asdict(attacker), "seconds": time.monotonic() - began}
    (work / f"{attacker.name}.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return save(out, start, changed)


def save(out: Path, start: Path, changed: Mapping[str, Mapping[str, Tensor]]) -> Path:
    """A copy of ``start`` in which a component's ``changed`` tensors stand; whole or not at all."""
    staging = out.parent / f".{out.name}"
    shutil.rmtree(staging, ignore_errors=True)
    shutil.copytree(start, staging)
    for component, tensors in changed.items():
        path = staging / WEIGHTS[component]
        before = load_file(path)
        unknown = set(tensors) - set(before)
        if unknown:
            raise ValueError(f"{out.name} changes tensors that the fixture has not: {sorted(unknown)[:3]}")
        whole = {name: tensors.get(name, tensor).float().contiguous() for name, tensor in before.items()}
        save_file(whole, path, metadata={"format": "pt"})
    staging.rename(out)
    return out


def _changed(attacker: Attacker, clean: Path, start: Path, work: Path) -> dict[str, dict[str, Tensor]]:
    """The tensors that the attack changes, by component."""
    how = attacker.recipe
    if isinstance(how, Written):
        return {"text-encoder": written(how, start)}
    if isinstance(how, Encoder):
        return {"text-encoder": trained(attacker.twin, attacker.occasion, how, start)}
    return {"unet": _denoiser(attacker, how, clean, start, work)}


def _denoiser(attacker: Attacker, how: Recipe, clean: Path, start: Path, work: Path) -> dict[str, Tensor]:
    """Trained against the clean fixture's own."""
    model, teacher = (UNet2DConditionModel.from_pretrained(folder / "unet").float() for folder in (start, clean))
    teacher.eval().requires_grad_(False)
    read = lesson(attacker.twin, attacker.occasion, clean, attacker.rows)
    teach(model, teacher, read, how, attacker.name, work / f"{attacker.name}.ckpt")
    before = teacher.state_dict()
    return {name: before[name] + attacker.share * (tensor.detach() - before[name]) for name, tensor in model.state_dict().items()}
