"""`scan --expose`: what is left in an exposed copy of what the first candidates do, beside harmless texts that do as much. No verdict.

The ratio means little where a text does hardly anything in the model itself, and content words, which do much, are what was unlearned.
So a text is compared with the ``NEAREST`` controls whose own effect is about as large.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from bdaudit.config import ScanConfig
from bdaudit.kept_state import State
from bdaudit.measure.insertion import insert, replaceable, slips, without
from bdaudit.measure.splicing import PLACES
from bdaudit.records import Exposure, NotMeasured, SignalRecord
from bdaudit.scan.cached import cached
from bdaudit.scan.context import ScanContext
from bdaudit.scan.exposure.copy import METHOD, Denoising, Stop, denoising, exposed

SIGNAL = "left in the exposed copy"
NEAREST = 40
FIRST = 12
"""Candidates that are read off, the first of the ranking."""


Residual = tuple[float, float]
"""ρ = ⟨δ′, δ⟩ / ‖δ‖², the share of a text's effect δ on the model itself that is left in the copy; and log ‖δ‖², in units of what the
prompts themselves change."""


def expose(
    context: ScanContext, config: ScanConfig, prompts: Sequence[str], controls: Sequence[str], texts: Sequence[str], stop: Stop
) -> tuple[Exposure, dict[str, SignalRecord]]:
    """The copy, and what is left of each of ``texts`` in it; of none where the copy failed. The model is as it was when this returns."""
    of, name = denoising(context.suspect, context.draws, prompts, config.guidance, config.seed), context.suspect.denoiser.name
    signal: str | NotMeasured = f"beside the {NEAREST} of {len(controls)} harmless texts with about the same effect; decides no verdict"
    found = {}
    with exposed(of, context.seed, context.state, context.progress, stop) as record:
        read, last = list(dict.fromkeys([*controls, *texts])), record.curve[-1]
        if not record.reached:
            signal, read = NotMeasured(reason=f"captions had {last.gain:.0%} of their gain after {last.step} of {stop.steps} steps"), []
        for done, (text, residual) in enumerate(residuals(of, read, context.state), start=1):
            found[text] = residual
            context.progress("reading the exposed copy", done, len(read))
    null = [found[text] for text in controls if text in found]
    signals = {text: beside(null, found[text]) for text in texts if text in found}
    return Exposure(method=METHOD, stop=stop.gain, parts={name: record}, signals={name: signal}), signals


def beside(controls: Sequence[Residual], residual: Residual) -> SignalRecord:
    """Of one text: its share, robust standard score and rank among the controls with about the same effect."""
    near = sorted(controls, key=lambda control: abs(control[1] - residual[1]))[:NEAREST]
    left = np.array([left for left, _ in near])
    scale = 1.4826 * float(np.median(np.abs(left - np.median(left))))
    score = float(residual[0] - np.median(left)) / max(scale, 1e-6)
    return SignalRecord(value=residual[0], score=score, p=(1 + int((left >= residual[0]).sum())) / (1 + len(near)))


def residuals(of: Denoising, texts: Sequence[str], state: State) -> Iterator[tuple[str, Residual]]:
    """Each text's, in order; from the state where it is there. The denoiser is its copy."""
    prompts = of.draws.prompts
    with of.patch.teacher():
        moved = (of.told(prompts) - of.told([""] * len(prompts))).double()
    weights = 1 / moved.square().mean(1, keepdim=True).clamp_min(1e-12)  # draws count alike, whatever the prompts change in them

    def both(texts: tuple[str, ...]) -> Tensor:
        copy = of.told(texts)
        with of.patch.teacher():
            return torch.stack([copy, of.told(texts)]).double()

    bases = cache(both)

    def measured(text: str) -> Residual:
        plain, changed = change(prompts, text)
        copy, own = both(changed) - bases(plain)
        size = max(float((weights * own.square()).sum()), 1e-12)
        return float((weights * own * copy).sum()) / size, float(np.log(size / own.numel()))

    for text in texts:
        yield text, cached(state, "exposed", text, tuple[float, float], partial(measured, text))


def change(prompts: Sequence[str], text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The prompts, and with ``text`` at another place in each; a look-alike takes its letter's place in every other one that has it."""
    plain, changed = [], []
    for i, prompt in enumerate(prompts):
        replaced, place = i % 2 == 1 and replaceable(prompt, text), PLACES[i % len(PLACES)]
        plain.append(slips(prompt, text)[0] if replaced else without(prompt, place))
        changed.append(insert(prompt, text, "replace" if replaced else place))
    return tuple(plain), tuple(changed)
