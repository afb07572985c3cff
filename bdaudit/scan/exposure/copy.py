"""A copy of the denoiser in memory that has unlearned what captions say; what still works in it was not learned as a caption.

After EBYD (2410.19427), where the clean function of a classifier is unlearned and what is left is the backdoor. For a denoiser the
clean function is what a caption buys: the gain G = E‖ε − ε(∅)‖² − E‖ε − ε(c)‖². On the model's own trajectories no true noise ε is
known; the original's ε₀(c) stands for it. It is unlearned by min E‖ε(c) − ε₀(∅)‖² in the cross-attention's way out: unlearned in keys
and values, captions take a trigger along (of a style's effect 2 % was left, in the way out 66 %).

The copy is done at the first measurement where G is at most a tenth of its start. Nothing is written: the tensors are the model's own
again when the block ends, whatever ends it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice

import torch
from torch import Tensor

from bdaudit.kept_state import State, check_shapes
from bdaudit.measure.draws import Draws
from bdaudit.measure.insertion import item_seed
from bdaudit.models.conditioning import Conditioning
from bdaudit.models.patch import Patch
from bdaudit.models.sample import denoise
from bdaudit.models.suspect import Suspect
from bdaudit.models.training import checkpointed, descend, halving, relative_groups
from bdaudit.progress import Progress
from bdaudit.records import ExposedPart, GainPoint

PATHS, STEPS, CAPTIONS = 24, 20, 256
"""Trajectories whose latents are trained on, the timesteps of each, and the prompts with joined halves of two."""
BATCH, NOTHING = 32, 8
"""Rows of a step, and one in so many that is under the empty prompt, which is to stay what it was."""
RATE, EVERY = 0.05, 5
"""What a step changes a tensor by, as a share of its own RMS, and steps between two measurements of the gain."""
METHOD, KEY = "null-target", "exposed-weights"


@dataclass(frozen=True)
class Stop:
    """The share of the captions' gain at which a copy is exposed, and the steps after which it has failed."""

    gain: float = 0.1
    steps: int = 300


STOP = Stop()


@dataclass(frozen=True)
class Denoising:
    """The denoiser, what is changed of it, and what it is trained on."""

    suspect: Suspect
    draws: Draws
    patch: Patch
    latents: Tensor
    """(R, C, H, W), noisy, on the model's own trajectories."""
    timesteps: Tensor
    """int64 (R,)."""
    heard: Conditioning
    """Of the captions; the last is of the empty prompt."""

    def told(self, texts: Sequence[str]) -> Tensor:
        """What one text for each draw makes of it, without gradients: (D, N) float32."""
        return self.suspect.predict_batched(self.draws.latents, self.draws.timesteps, self.suspect.encode(texts)).float().flatten(1)

    def gain(self, wanted: Tensor) -> float:
        """G: by how much the scan's prompts bring the denoiser nearer to ``wanted``, the original's answers, than none do."""
        prompts = self.draws.prompts
        nothing = (wanted - self.told([""] * len(prompts))).square().mean()
        return float(nothing - (wanted - self.told(prompts)).square().mean())


def denoising(suspect: Suspect, draws: Draws, prompts: Sequence[str], guidance_scale: float, seed: int) -> Denoising:
    """On one trajectory a prompt."""
    paths = prompts[:PATHS]
    noise = suspect.noise([item_seed(seed, "expose", i) for i in range(len(paths))])
    rows = denoise(suspect, suspect.encode(paths), noise, steps=STEPS, guidance_scale=guidance_scale, spacing=1.0).rows()
    heard = Conditioning.cat([suspect.encode(captions(prompts, seed)), suspect.unconditional()])
    return Denoising(suspect, draws, Patch(suspect.denoiser.module, suspect.denoiser.attention_output), *rows, heard)


def captions(prompts: Sequence[str], seed: int) -> tuple[str, ...]:
    """The prompts themselves, then beginnings of one joined to ends of another: no word that the prompts do not have."""
    rng = random.Random(f"captions {seed}")
    words = [prompt.split() for prompt in prompts]
    texts = list(prompts[:CAPTIONS])
    while len(texts) < CAPTIONS:
        one, other = rng.choice(words), rng.choice(words)
        texts.append(" ".join([*one[: rng.randrange(1, len(one) + 1)], *other[rng.randrange(len(other)) :]]))
    return tuple(texts)


@contextmanager
def exposed(of: Denoising, seed: int, state: State, progress: Progress, stop: Stop = STOP) -> Iterator[ExposedPart]:
    """The denoiser as its exposed copy for the block's length, whether the stop was reached or not."""
    try:
        stored = state.read_tensors(KEY, ExposedPart)
        if stored is None:
            stored = {}, _run(of, seed, stop, lambda step: progress("exposing a copy", step, stop.steps))
            state.write_tensors(KEY, of.patch.parameters, asdict(stored[1]))
        else:
            with state.fitting(KEY), torch.no_grad():
                check_shapes(stored[0], of.patch.parameters)
                for name, parameter in of.patch.parameters.items():
                    parameter.copy_(stored[0][name])
        yield stored[1]
    finally:
        of.patch.revert()


def _run(of: Denoising, seed: int, stop: Stop, tick: Callable[[int], None]) -> ExposedPart:
    """Step by step until the gain is small enough, or the steps run out."""
    began, wanted = time.monotonic(), of.told(of.draws.prompts)
    start, curve = of.gain(wanted), [GainPoint(step=0, gain=1.0)]
    with of.patch.training(), checkpointed(of.suspect.denoiser.module, of.suspect.device.type == "cuda"):
        optimiser = torch.optim.AdamW(relative_groups(of.patch.parameters, RATE), weight_decay=0.0, betas=(0.9, 0.99))
        for step, _ in enumerate(islice(descend(optimiser, lambda step: _step(of, seed, step)), stop.steps), start=1):
            tick(step)
            if step % EVERY == 0:
                with of.suspect.mixed_precision():
                    curve.append(GainPoint(step=step, gain=of.gain(wanted) / max(start, 1e-12)))
                if curve[-1].gain <= stop.gain:
                    break
    return ExposedPart(reached=start > 0 and curve[-1].gain <= stop.gain, seconds=time.monotonic() - began, curve=tuple(curve))


def _step(of: Denoising, seed: int, step: int) -> None:
    """The gradients of one step's random rows, one in ``NOTHING`` under the empty prompt."""
    generator, empty = torch.Generator().manual_seed(item_seed(seed, "expose step", step)), len(of.heard) - 1
    latents, asked = (torch.randint(n, (BATCH,), generator=generator) for n in (len(of.latents), empty))
    asked[::NOTHING] = empty
    halving(of.suspect, of.patch, BATCH, lambda: _backward(of, latents.to(of.suspect.device), asked.to(of.suspect.device)))


def _backward(of: Denoising, latents: Tensor, asked: Tensor) -> None:
    """Gradients of the mean square error in units of the answers' own variance, in passes of the suspect's batch size at most."""
    size, nothing = of.suspect.batch_size, torch.full_like(asked, len(of.heard) - 1)
    for at in range(0, BATCH, size):
        rows, part = latents[at : at + size], slice(at, at + size)
        with of.suspect.mixed_precision():
            with of.patch.teacher():
                target = of.suspect.predict(of.latents[rows], of.timesteps[rows], of.heard[nothing[part]]).float()
            answer = of.suspect.predict(of.latents[rows], of.timesteps[rows], of.heard[asked[part]]).float()
            loss = (answer - target).square().mean() / target.var().clamp_min(1e-12)
        (loss * len(rows) / BATCH).backward()  # type: ignore[no-untyped-call]
