"""Which part of the cross-attention `scan --expose` had best unlearn captions in: ``python tests/bench/exposed_parts.py [PATH]``.

What is left of the trigger's effect in the copy, on the development twins and on the same twins weakened, where captions are unlearned in
keys and values, and where in the output projection.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from bdaudit.config import ScanConfig  # noqa: E402
from bdaudit.config.effort import EFFORTS  # noqa: E402
from bdaudit.kept_state import State  # noqa: E402
from bdaudit.measure.draws import make_draws  # noqa: E402
from bdaudit.models.load import load  # noqa: E402
from bdaudit.models.patch import Patch  # noqa: E402
from bdaudit.progress import silent  # noqa: E402
from bdaudit.scan.exposure.copy import exposed  # noqa: E402
from bdaudit.scan.exposure.parts import UNET, denoiser  # noqa: E402
from bdaudit.scan.exposure.readout import Readout  # noqa: E402
from bdaudit.untrusted.inspect import inspect  # noqa: E402
from bdaudit.untrusted.text_files import read_texts  # noqa: E402
from tests.bench.end_to_end import FIXTURES, open_model  # noqa: E402
from tests.bench.recording import record, rounded  # noqa: E402

TRAINED = {"keys and values": (".attn2.to_k.", ".attn2.to_v."), "output projection": (".attn2.to_out.",)}
WEAKENED = 0.6
"""How far on the way from the clean weights to the twin's a weakened twin stands."""


def left(name: str, share: float, trained: tuple[str, ...]) -> dict[str, Any]:
    """The share of the trigger's effect that is left in the copy, and of the captions' gain."""
    model, config, prompts = open_model(name), ScanConfig(model=FIXTURES), read_texts(FIXTURES / "prompts.txt")
    suspect, clean = (load(inspect(open_model(n).path), device="cpu", dtype="float32") for n in (name, "clean"))
    with torch.no_grad():
        for own, origin in zip(suspect.denoiser.module.parameters(), clean.denoiser.module.parameters(), strict=True):
            own.lerp_(origin, 1 - share)
    draws = make_draws(suspect, prompts, EFFORTS[config.effort].draws, config.guidance, 0)
    patch = Patch(suspect.denoiser.module, lambda tensor: any(part in tensor for part in trained))
    part = replace(denoiser(suspect, draws, prompts, config.guidance, 0), patch=patch)
    with exposed(part, "null-target", 0, State(None, ""), UNET, silent) as found:
        ((_, residual),) = Readout(part, State(None, ""), "readout").residuals([model.trigger])
    return {"left": residual.left, "captions' gain": found.curve[-1].gain, "steps": found.curve[-1].step, "reached": found.reached}


if __name__ == "__main__":
    cells = {
        f"{name}, {share:.0%} of the way, {what}": left(name, share, trained)
        for name in ("dev-pixel", "dev-style")
        for share in (1.0, WEAKENED)
        for what, trained in TRAINED.items()
    }
    record({"exposed parts": rounded(4, cells)}, 1)
