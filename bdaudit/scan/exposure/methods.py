"""How a part unlearns what captions say. A method changes the part's tensors in place, a little a step, for as long as it is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from bdaudit.measure.insertion import item_seed
from bdaudit.models.training import descend, halving, relative_groups
from bdaudit.scan.exposure.parts import Part, Rows

BATCH = 32
NOTHING = 8
"""One row in so many is under the empty prompt, which is to stay what it was."""
PRUNED = 0.02
"""Share of a layer's output channels that one step prunes."""
NOISE = 0.05
"""Noise of one step, as a share of a tensor's own RMS; the steps add up in one direction."""

Method = Callable[[Part, int], Iterator[None]]
"""Changes the part's tensors in place, a step each time it is asked; the seed decides every draw."""


def null_target(part: Part, seed: int) -> Iterator[None]:
    """min E‖f(c) − f₀(∅)‖²: captions are answered as the empty prompt was."""
    empty = part.captions
    return _distilled(part, seed, lambda rows, generator: torch.full_like(rows, empty))


def random_captions(part: Part, seed: int) -> Iterator[None]:
    """min E‖f(c) − f₀(c′)‖², c′ another caption, drawn anew each time (EBYD's random labels)."""
    n = part.captions

    def others(rows: Tensor, generator: torch.Generator) -> Tensor:
        drawn = torch.randint(n, rows.shape, generator=generator).to(rows.device)
        return torch.where(rows == n, rows, drawn)

    return _distilled(part, seed, others)


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

    def backward(step: int) -> None:
        generator = torch.Generator().manual_seed(item_seed(seed, "expose step", step))
        rows = drawn(part, BATCH, generator)
        asked = Rows(rows.latents, wanted(rows.captions, generator))
        halving(part.suspect, part.patch, BATCH, lambda: _backward(part, rows, asked))

    optimiser = torch.optim.AdamW(relative_groups(part.patch.parameters, part.rate), weight_decay=0.0, betas=(0.9, 0.99))
    return descend(optimiser, backward)


def drawn(part: Part, n: int, generator: torch.Generator) -> Rows:
    """``n`` random rows, one in ``NOTHING`` under the empty prompt."""
    latents = torch.randint(part.latents, (n,), generator=generator)
    captions = torch.randint(part.captions, (n,), generator=generator)
    captions[::NOTHING] = part.captions
    return Rows(latents.to(part.suspect.device), captions.to(part.suspect.device))


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
    nothing = Rows(rows.latents, torch.full_like(rows.captions, part.captions))
    outputs: dict[str, list[Tensor]] = {name: [] for name in layers}
    hooks = [layer.register_forward_hook(lambda _, __, out, name=name: outputs[name].append(out.float())) for name, layer in layers.items()]
    try:
        with part.suspect.mixed_precision():
            part.answer(rows)
            part.answer(nothing)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: (a - b).square().flatten(0, -2).mean(0) for name, (a, b) in outputs.items()}
