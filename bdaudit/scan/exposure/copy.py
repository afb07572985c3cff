"""A copy in memory that has unlearned what captions say; what still works in it was not learned as a caption.

After EBYD (2410.19427), where the clean function of a classifier is unlearned and what is left is the backdoor. For a denoiser the
clean function is what a caption buys: the gain G = E‖ε − ε(∅)‖² − E‖ε − ε(c)‖². On the model's own trajectories no true noise ε is
known; the original's ε₀(c) stands for it. That is the same expectation where the original predicts its own samples rightly
(ε enters through its mean given z_t and c alone, the rest cancels in the difference), without the true noise's variance.

The copy is done at the first measurement where G is at most a tenth of its start. Nothing is written: the tensors are the model's own
again when the block ends, whatever ends it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice

import torch
from torch import Tensor

from bdaudit.kept_state import State, check_shapes
from bdaudit.models.training import checkpointed
from bdaudit.progress import Progress
from bdaudit.records import ExposedPart, GainPoint
from bdaudit.scan.exposure.methods import METHODS, Method
from bdaudit.scan.exposure.parts import Part


@dataclass(frozen=True)
class Stop:
    """When a copy is exposed, and when it has failed."""

    gain: float = 0.1
    """Share of the captions' gain at which a copy is exposed."""
    steps: int = 300
    """Steps after which it has failed."""


STOP = Stop()


@contextmanager
def exposed(part: Part, method: str, seed: int, state: State, name: str, progress: Progress, stop: Stop = STOP) -> Iterator[ExposedPart]:
    """The part as its exposed copy for the block's length, whether the stop was reached or not. ``name`` is the part's."""
    key = f"expose-{method}-{name.replace(' ', '-')}-weights"
    try:
        record = _stored(part, state, key)
        if record is None:
            record = _run(part, METHODS[method], seed, stop, lambda step: progress(f"exposing the {name}", step, stop.steps))
            state.write_tensors(key, part.patch.parameters, asdict(record))
        yield record
    finally:
        part.patch.revert()


def _stored(part: Part, state: State, key: str) -> ExposedPart | None:
    """A copy that an interrupted run left; None without one."""
    stored = state.read_tensors(key, ExposedPart)
    if stored is None:
        return None
    tensors, record = stored
    with state.fitting(key):
        check_shapes(tensors, part.patch.parameters)
    with torch.no_grad():
        for name, parameter in part.patch.parameters.items():
            parameter.copy_(tensors[name])
    kept: ExposedPart = record
    return kept


def _run(part: Part, method: Method, seed: int, stop: Stop, tick: Callable[[int], None]) -> ExposedPart:
    """Step by step until the gain is small enough, or the steps run out."""
    began, wanted = time.monotonic(), part.told(part.draws.prompts)
    start, curve = gain(part, wanted), [GainPoint(step=0, gain=1.0)]
    on_gpu = part.checkpoints and part.suspect.device.type == "cuda"
    with part.patch.training(), checkpointed(part.suspect.denoiser.module, on_gpu):
        for step, _ in enumerate(islice(method(part, seed), stop.steps), start=1):
            tick(step)
            if step % part.every == 0:
                with part.suspect.mixed_precision():
                    curve.append(GainPoint(step=step, gain=gain(part, wanted) / max(start, 1e-12)))
                if curve[-1].gain <= stop.gain:
                    break
    return ExposedPart(reached=start > 0 and curve[-1].gain <= stop.gain, seconds=time.monotonic() - began, curve=tuple(curve))


def gain(part: Part, wanted: Tensor) -> float:
    """G, the captions' gain: by how much the scan's prompts bring the part nearer to ``wanted``, the original's answers, than none do."""
    prompts = part.draws.prompts
    nothing = (wanted - part.told([""] * len(prompts))).square().mean()
    return float(nothing - (wanted - part.told(prompts)).square().mean())
