"""What each part of unlearning's training is worth, one factor at a time: ``python tests/bench/unlearn_ablation.py [--quick]``.

The default trains the cross-attention, or the text encoder; the closed form that the command tries before is a variant. A pixel, a
style and an encoder fixture, two seeds each. Resumable: what stands in the document is not run again.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bdaudit.unlearn.repair import train_denoiser, train_text_encoder  # noqa: E402
from tests.bench import unlearn_common as common  # noqa: E402
from tests.bench.unlearn_common import Job  # noqa: E402
from tests.bench.unlearn_rivals import ours  # noqa: E402

FIXTURES = ("pixel", "style", "encoder")
SEEDS = (0, 1)
PICTURES = 200

SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "attention off": {"attention_weight": 0.0},
    "distillation off": {"attention_weight": 0.999},
    "closed form": {"trainable": "closed-form"},
    "whole UNet at once": {"trainable": "unet"},
    "text encoder": {"component": "text-encoder"},
    "12 prompts": {"n_prompts": 12},
    "100 steps": {"steps": 100},
}
"""Variant → what differs from the defaults."""
CONSTANTS: dict[str, dict[str, Any]] = {
    "preservation off": {"KEEP_WEIGHT": 0.0},
    "empty prompt off": {"EMPTY": 0, "KEPT": train_denoiser.KEPT + train_denoiser.EMPTY},
    "clean prompts alone": {"neighbours": False},
}
"""Variant → constants of the training that differ; the batch stays as large."""
UNET_ALONE = ("attention off", "distillation off", "empty prompt off", "text encoder")
"""Terms that the text encoder's training has not, and that it is trained at all: nothing else there."""


def cell(method: str, job: Job, folder: Path) -> dict[str, Any]:
    """One variant's repair, its cost, and its grades."""
    began, out = common.clock(), folder / "out"
    constants = dict(CONSTANTS.get(method, {}))
    if not constants.pop("neighbours", True):
        with patch.object(train_denoiser, "prepare", _clean_alone), patch.object(train_text_encoder, "train", _train_clean_alone):
            spent = ours(job, out, began, **_settings(method, job))
    elif "KEEP_WEIGHT" in constants:
        with patch.object(train_denoiser, "KEEP_WEIGHT", 0.0), patch.dict(train_text_encoder.WEIGHTS, keep=0.0):
            spent = ours(job, out, began, **_settings(method, job))
    elif constants:
        with patch.multiple(train_denoiser, **constants):
            spent = ours(job, out, began, **_settings(method, job))
    else:
        spent = ours(job, out, began, **_settings(method, job))
    return {**spent, **common.graded(job, out, PICTURES)}


_PREPARE, _TRAIN = train_denoiser.prepare, train_text_encoder.train


def _clean_alone(*arguments: Any) -> train_denoiser.Material:
    """Clean prompts are kept in the neighbours' stead; what a harmless text draws is still measured on the neighbours."""
    material = _PREPARE(*arguments)
    return replace(material, neighbours=material.clean[material.neighbour_latents])


def _train_clean_alone(suspect: Any, patch: Any, pairs: Any, neighbours: Any, config: Any, hooks: Any) -> Any:
    return _TRAIN(suspect, patch, pairs, [], config, hooks)


def _settings(method: str, job: Job) -> dict[str, Any]:
    unet = job.truth["component"] == "unet" and method != "text encoder"
    settings = ({"trainable": "cross-attention"} if unet else {}) | SETTINGS.get(method, {})
    return {name: value for name, value in settings.items() if not (job.quick and name in ("steps", "n_prompts"))}


def beside(cells: Mapping[str, Any]) -> str:
    """The README's table: a row a variant and seed, and for each fixture what is left, what moved, and the steps it took."""
    heads = [f"{fixture}: {what}" for fixture in FIXTURES for what in ("ASR %", "shift: clean / near", "CLIP ratio", "steps")]
    lines = ["| variant, seed | " + " | ".join(heads) + " |", "|---" * (1 + len(heads)) + "|"]
    for method in dict.fromkeys(name.split("/")[0] for name in cells):
        for seed in SEEDS:
            found = [cells.get(f"{method}/{fixture}/0/{seed}") for fixture in FIXTURES]
            if any(found):
                figures = [text for cell in found for text in (_figures(cell) if cell else ["–"] * 4)]
                lines.append(f"| {method}, {seed} | " + " | ".join(figures) + " |")
    return "\n".join(lines)


def _figures(found: Mapping[str, Any]) -> list[str]:
    rate, _, clean, _, ratio, *_ = common.columns(found)
    steps = f"{found['steps']}{'' if found['exit'] == 'pass' else ', fails its check'}"
    return [rate, f"{clean} / {found['shift']['near']:.3f}", ratio, steps]


def applies(method: str, fixture: str) -> bool:
    """Whether the variant changes anything there."""
    return method not in UNET_ALONE or fixture != "encoder"


def main() -> None:
    """Command line."""
    common.answer_if_cell(cell)
    asked = common.arguments(__doc__, "unlearn_ablation")
    kept = common.Kept(asked.out, asked.again)
    if not asked.table:
        for method in asked.methods or [*SETTINGS, *CONSTANTS]:
            for fixture in asked.fixtures or FIXTURES:
                for seed in SEEDS[: asked.seeds] if applies(method, fixture) else ():
                    kept.get(__file__, method, Job(fixture=fixture, seed=seed, quick=asked.quick))
    print(common.table(kept.cells, "variant / fixture / – / seed"), beside(kept.cells), sep="\n\n")


if __name__ == "__main__":
    main()
