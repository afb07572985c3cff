"""Defence-aware merging (DAM, 2410.13910): a mask that the contributors share and a safety mask of each one's own, optimised in turn.

θ = θ_base + λ Σ_i τ_i ⊙ M1 ⊙ M2_i. M1 learns to predict what the contributors predict on clean prompts; M2 the same and, besides, that a
soft token which does much in a contributor does no more in the merge than in the base. Each contributor counts alike, however far it went
from the base. Masks are relaxed Bernoulli variables (1611.00712), a number an output channel; M1 is divided by its mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bdaudit.measure.insertion import item_seed
from bdaudit.models.suspect import Suspect
from bdaudit.models.training import descend, loss_point
from bdaudit.records import LossPoint
from bdaudit.unlearn.merging import adversary
from bdaudit.unlearn.merging.blend import Blend
from bdaudit.unlearn.merging.lessons import Lessons

ROUNDS = 30
RATE = 0.6
"""Adam's rate on the logits."""
TEMPERATURE = 0.5
SAFETY_WEIGHT = 0.1
"""Of the adversary's term."""
KEPT = 2.0
"""Logit of the safety mask at the start: all but an eighth is let through."""
DIVERGED = "the masks' loss is {total} in round {step}: one of the fine-tunes drives the merge out of range; leave it out"
ROWS = 16
"""Rows a step of the shared mask."""
MASKS = ("shared", "safety")


@dataclass(frozen=True)
class Found:
    """The masks as they are used: the means of their variables, not draws."""

    shared: Tensor
    """(T,): M1."""
    safety: Tensor
    """(N, T): M2."""
    curve: tuple[LossPoint, ...]


class Masks:
    """Logits of both masks."""

    def __init__(self, contributors: int, channels: int, masks: tuple[str, ...]) -> None:
        self.masks = masks
        self.shared = torch.zeros(channels, requires_grad=True)
        self.safety = torch.full((contributors, channels), KEPT, requires_grad=True)

    def m1(self, generator: torch.Generator | None = None) -> Tensor:
        """(T,), mean 1; a draw with a generator, else the mean."""
        if "shared" not in self.masks:
            return torch.ones_like(self.shared)
        drawn = _drawn(self.shared, generator)
        return drawn / drawn.mean()

    def m2(self, generator: torch.Generator | None = None) -> Tensor:
        """(N, T), 0 to 1."""
        return _drawn(self.safety, generator) if "safety" in self.masks else torch.ones_like(self.safety)


def _drawn(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    if generator is None:
        return torch.sigmoid(logits)
    noise = torch.rand(logits.shape, generator=generator).clamp(1e-6, 1 - 1e-6)
    return torch.sigmoid((logits + torch.logit(noise)) / TEMPERATURE)


def optimise(
    blend: Blend, base: Suspect, lessons: Lessons, seed: int, tick: Callable[[int, int], None], masks: tuple[str, ...] = MASKS
) -> Found:
    """Both masks in turn, ``ROUNDS`` times; the blend holds the merge afterwards. The logits lie on the CPU."""
    own = Masks(len(blend.vectors), blend.channels, masks)
    attack = adversary.Attack(base, _tokens(blend, base, lessons, seed)) if "safety" in masks else None
    generator, turns, curve = torch.Generator(), [], []
    if "shared" in masks:
        turns.append(descend(torch.optim.Adam([own.shared], lr=RATE), lambda k: _shared_step(blend, lessons, own, generator)))
    if attack:
        both = torch.optim.Adam([{"params": [own.safety]}, attack.group], lr=RATE)
        turns.append(descend(both, lambda k: _safety_step(blend, base, lessons, own, attack, generator)))
    for k in range(ROUNDS):
        generator.manual_seed(item_seed(seed, "merge step", k))
        terms = {name: term for turn in turns for name, term in next(turn).items()}
        if attack:
            attack.pull_back()
        curve.append(loss_point(k + 1, {"total": sum(terms.values()), **terms}, DIVERGED))
        tick(k + 1, ROUNDS)
    found = Found(own.m1().detach(), own.m2().detach(), tuple(curve))
    blend.put(found.shared * found.safety)
    return found


def _tokens(blend: Blend, base: Suspect, lessons: Lessons, seed: int) -> Tensor:
    """A token for each contributor, found against it alone: (N, 1, D)."""
    tokens = []
    for i, vector in enumerate(blend.vectors):
        blend.put_difference(vector)
        tokens.append(adversary.attack(blend, base, lessons, torch.Generator().manual_seed(item_seed(seed, "merge attack", i)))[0])
    return torch.cat(tokens)


def teaching_loss(lessons: Lessons, rows: Tensor, predicted: Tensor) -> Tensor:
    """Mean over contributors of ‖ε − ε_i‖² / ‖ε_0 − ε_i‖²: 1 where the merge is as far from them as the base is."""
    error = (predicted - lessons.taught[:, rows]).square().flatten(1).mean(1) / lessons.scale
    return (error / lessons.distance.clamp_min(1e-6)).mean()


def _shared_step(blend: Blend, lessons: Lessons, own: Masks, generator: torch.Generator) -> dict[str, float]:
    factors = own.m1(generator) * own.m2().detach()
    rows = torch.randint(len(lessons.z), (ROWS,), generator=generator).to(lessons.z.device)
    with blend.trained(factors.detach()):
        loss = teaching_loss(lessons, rows, adversary.predicted(blend, lessons, rows))
        loss.backward()  # type: ignore[no-untyped-call]
        factors.backward(blend.gradient())  # type: ignore[no-untyped-call]
    return {"shared": float(loss.detach())}


def _safety_step(
    blend: Blend, base: Suspect, lessons: Lessons, own: Masks, attack: adversary.Attack, generator: torch.Generator
) -> dict[str, float]:
    """One backward pass gives both gradients: the mask goes down it, the tokens go up; Adam does not mind their scale."""
    factors = own.m1().detach() * own.m2(generator)
    rows = torch.randint(len(lessons.z), (len(blend.vectors), adversary.ROWS), generator=generator).to(lessons.z.device)
    with blend.trained(factors.detach()):
        now = adversary.predicted(blend, lessons, rows.flatten())
        taught = teaching_loss(lessons, rows.flatten(), now)
        spread = adversary.excess(blend, base, lessons, attack.tokens, rows, now).mean()
        (taught + SAFETY_WEIGHT * spread).backward()  # type: ignore[no-untyped-call]
        factors.backward(blend.gradient())  # type: ignore[no-untyped-call]
    return {"taught": float(taught.detach()), "excess": float(spread.detach())}
