"""Exposure: a copy that has unlearned what captions say, in memory; what still works in it was not learned as a caption.

After EBYD (2410.19427), where the clean function of a classifier is unlearned and what is left is the backdoor. For a denoiser the
clean function is what a caption buys: the gain G = E‖ε − ε(∅)‖² − E‖ε − ε(c)‖². On the model's own trajectories no true noise ε is
known; the original's ε₀(c) stands for it. That is the same expectation where the original predicts its own samples rightly
(ε enters through its mean given z_t and c alone, the rest cancels in the difference), without the true noise's variance.

A method changes the part's tensors a little a step; the copy is done at the first measurement where G is at most a tenth of its
start. Nothing is written: the tensors are the model's own again when the block ends, whatever ends it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice

import torch
from torch import Tensor, nn

from bdaudit.measure.insertion import item_seed
from bdaudit.pipeline.state import State, check_shapes
from bdaudit.pipeline.training import checkpointed, halving
from bdaudit.progress import Progress
from bdaudit.report.records import ExposedPart, GainPoint
from bdaudit.scan.parts import Denoiser, Part, Rows

STOP = 0.1
"""Share of the captions' gain at which a copy is exposed."""
MOST = 300
"""Steps after which it has failed."""
BATCH = 32
NOTHING = 8
"""One row in so many is under the empty prompt, which is to stay what it was."""
PRUNED = 0.02
"""Share of a layer's output channels that one step prunes."""
NOISE = 0.05
"""Noise of one step, as a share of a tensor's own RMS; the steps add up in one direction."""

Method = Callable[[Part, int], Iterator[None]]
"""Changes the part's tensors in place, a step each time it is asked; the seed decides every draw."""


# --- the methods ------------------------------------------------------------------------------


def null_target(part: Part, seed: int) -> Iterator[None]:
    """min E‖f(c) − f₀(∅)‖²: captions are answered as the empty prompt was."""
    empty = int(part.size.captions)
    yield from _distilled(part, seed, lambda rows, generator: torch.full_like(rows, empty))


def random_captions(part: Part, seed: int) -> Iterator[None]:
    """min E‖f(c) − f₀(c′)‖², c′ another caption, drawn anew each time (EBYD's random labels)."""
    n = int(part.size.captions)

    def others(rows: Tensor, generator: torch.Generator) -> Tensor:
        drawn = torch.randint(n, rows.shape, generator=generator).to(rows.device)
        return torch.where(rows == n, rows, drawn)

    yield from _distilled(part, seed, others)


def pruning(part: Part, seed: int) -> Iterator[None]:
    """Output channels of the part's linear layers set to nought, those first that captions move furthest from the empty prompt."""
    layers = _linear(part)
    order = {name: moved.argsort(descending=True) for name, moved in _moved(part, layers, seed).items()}
    for step in range(1, round(1 / PRUNED) + 1):
        with torch.no_grad():
            for name, layer in layers.items():
                layer.weight[order[name][: round(step * PRUNED * len(order[name]))]] = 0.0
        yield


def weight_noise(part: Part, seed: int) -> Iterator[None]:
    """Normal noise added to every tensor in proportion to its own RMS, ever more of the same noise."""
    noise = {}
    for name, original in part.patch.originals.items():
        drawn = torch.randn(original.shape, generator=torch.Generator().manual_seed(item_seed(seed, "expose noise", name)))
        noise[name] = drawn.to(original.device) * original.float().square().mean().sqrt()
    while True:
        with torch.no_grad():
            for name, parameter in part.patch.parameters.items():
                parameter.add_(NOISE * noise[name])
        yield


METHODS: dict[str, Method] = {
    "null-target": null_target, "random-captions": random_captions, "pruning": pruning, "weight-noise": weight_noise,
}  # fmt: skip


def _distilled(part: Part, seed: int, wanted: Callable[[Tensor, torch.Generator], Tensor]) -> Iterator[None]:
    """Training on the original's answers to other captions; ``wanted`` says to which."""
    optimiser = torch.optim.AdamW(part.patch.groups(part.rate), weight_decay=0.0, betas=(0.9, 0.99))
    step = 0
    while True:
        generator = torch.Generator().manual_seed(item_seed(seed, "expose step", step))
        rows = drawn(part, BATCH, generator)
        asked = Rows(rows.latents, wanted(rows.captions, generator))
        optimiser.zero_grad()
        halving(part.suspect, part.patch, BATCH, lambda rows=rows, asked=asked: _backward(part, rows, asked))  # type: ignore[misc]
        optimiser.step()
        step += 1
        yield


def drawn(part: Part, n: int, generator: torch.Generator) -> Rows:
    """``n`` random rows, one in ``NOTHING`` under the empty prompt."""
    size, device = part.size, part.suspect.device
    latents = torch.randint(int(size.latents), (n,), generator=generator)
    captions = torch.randint(int(size.captions), (n,), generator=generator)
    captions[::NOTHING] = int(size.captions)
    return Rows(latents.to(device), captions.to(device))


def _backward(part: Part, rows: Rows, asked: Rows) -> None:
    """Gradients of the mean square error in units of the answers' own variance, in passes of the suspect's batch size at most."""
    size = part.suspect.batch_size
    for at in range(0, len(rows.captions), size):
        some, others = (Rows(r.latents[at : at + size], r.captions[at : at + size]) for r in (rows, asked))
        with part.suspect.mixed_precision():
            with part.patch.teacher():
                target = part.answer(others)
            answer = part.answer(some)
        loss = (answer - target).square().mean() / target.var().clamp_min(1e-12)
        (loss * len(some.captions) / len(rows.captions)).backward()  # type: ignore[no-untyped-call]


def _linear(part: Part) -> dict[str, nn.Linear]:
    names = {name.rsplit(".", 1)[0] for name in part.patch.parameters}
    return {name: layer for name, layer in part.patch.module.named_modules() if name in names and isinstance(layer, nn.Linear)}


@torch.no_grad()
def _moved(part: Part, layers: dict[str, nn.Linear], seed: int) -> dict[str, Tensor]:
    """Mean square that a caption moves each output channel by, from what the empty prompt gives on the same latents: (channels,) each."""
    rows = drawn(part, 2 * BATCH, torch.Generator().manual_seed(item_seed(seed, "expose pruning")))
    nothing = Rows(rows.latents, torch.full_like(rows.captions, int(part.size.captions)))
    kept: dict[str, list[Tensor]] = {name: [] for name in layers}
    hooks = [layer.register_forward_hook(lambda _, __, out, name=name: kept[name].append(out.float())) for name, layer in layers.items()]
    try:
        with part.suspect.mixed_precision():
            part.answer(rows)
            part.answer(nothing)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: (a - b).square().flatten(0, -2).mean(0) for name, (a, b) in kept.items()}


# --- the copy ---------------------------------------------------------------------------------


@contextmanager
def exposed(part: Part, method: str, seed: int, state: State, name: str, progress: Progress) -> Iterator[ExposedPart]:
    """The part as its exposed copy for the block's length, whether the stop was reached or not. ``name`` is the part's."""
    key = f"expose-{method}-{name.replace(' ', '-')}-weights"
    try:
        record = _kept(part, state, key)
        if record is None:
            record = _run(part, METHODS[method], seed, lambda step: progress(f"exposing the {name}", step, MOST))
            notes = [[point.step, point.gain] for point in record.curve]
            state.write_tensors(key, part.patch.parameters, [record.reached, record.seconds, notes])
        yield record
    finally:
        part.patch.revert()


def _kept(part: Part, state: State, name: str) -> ExposedPart | None:
    """A copy that an interrupted run left; None without one."""
    found = state.read_tensors(name)
    if found is None:
        return None
    tensors, notes = found
    with state.fitting(name):
        reached, seconds, curve = notes
        record = ExposedPart(
            reached=bool(reached), seconds=float(seconds), curve=tuple(GainPoint(step=int(step), gain=float(gain)) for step, gain in curve)
        )
        check_shapes(tensors, part.patch.parameters)
    with torch.no_grad():
        for key, parameter in part.patch.parameters.items():
            parameter.copy_(tensors[key])
    return record


def _run(part: Part, method: Method, seed: int, tick: Callable[[int], None]) -> ExposedPart:
    """Step by step until the gain is at most ``STOP`` of its start, or the steps run out."""
    began, wanted = time.monotonic(), part.told(part.stage.prompts)
    start, curve = gain(part, wanted), [GainPoint(step=0, gain=1.0)]
    on_gpu = isinstance(part, Denoiser) and part.suspect.device.type == "cuda"
    with part.patch.training(), checkpointed(part.suspect.unet, on_gpu):
        for step, _ in enumerate(islice(method(part, seed), MOST), start=1):
            tick(step)
            if step % part.every == 0:
                with part.suspect.mixed_precision():
                    curve.append(GainPoint(step=step, gain=gain(part, wanted) / max(start, 1e-12)))
                if curve[-1].gain <= STOP:
                    break
    return ExposedPart(reached=start > 0 and curve[-1].gain <= STOP, seconds=time.monotonic() - began, curve=tuple(curve))


def gain(part: Part, wanted: Tensor) -> float:
    """G, the captions' gain: by how much the scan's prompts bring the part nearer to ``wanted``, the original's answers, than none do."""
    prompts = part.stage.prompts
    nothing = (wanted - part.told([""] * len(prompts))).square().mean()
    return float(nothing - (wanted - part.told(prompts)).square().mean())
