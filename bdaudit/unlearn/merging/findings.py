"""What is said of a finished merge: how much of each contributor is in it, how near it came, what soft tokens and triggers still do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bdaudit.measure import estimates
from bdaudit.measure.effect import Effect
from bdaudit.measure.insertion import item_seed
from bdaudit.models.suspect import Suspect
from bdaudit.records import Check, ContributorRecord, Estimate, NotMeasured
from bdaudit.unlearn.merging import adversary
from bdaudit.unlearn.merging.blend import Blend
from bdaudit.unlearn.merging.closed_forms import Vector
from bdaudit.unlearn.merging.contributors import Contributor
from bdaudit.unlearn.merging.defence import Found
from bdaudit.unlearn.merging.lessons import Lessons
from bdaudit.unlearn.outcome import effect_estimate
from bdaudit.unlearn.sequential import status

MOST = 5
"""Tensors that are named as masked most."""
NO_MASK = NotMeasured(reason="the method has no such mask")
UNFINISHED = NotMeasured(reason="the run ended before this was measured")


@dataclass
class Measured:
    """What was measured of one contributor so far."""

    quality: Estimate | NotMeasured = UNFINISHED
    soft_token: Estimate | NotMeasured = UNFINISHED
    soft_token_after: Estimate | NotMeasured = UNFINISHED
    triggers: list[Effect] = field(default_factory=list)


def nearness(blend: Blend, lessons: Lessons) -> tuple[Tensor, Tensor]:
    """(N, P) twice: on each prompt, the blend's mean squared distance from each contributor, and the base's; its mean over all is 1."""
    with torch.no_grad():
        parts = torch.split(torch.arange(len(lessons.z), device=lessons.z.device), blend.suspect.batch_size)
        found = torch.cat([adversary.predicted(blend, lessons, part) for part in parts])

    def by_prompt(predicted: Tensor) -> Tensor:
        error = (predicted - lessons.taught).square().flatten(2).mean(2) / lessons.scale / lessons.distance.clamp_min(1e-6)[:, None]
        return torch.stack([error[:, lessons.text == p].mean(1) for p in range(len(lessons.texts) - 1)], dim=1)

    return by_prompt(found), by_prompt(lessons.plain)


def nearness_check(merged: Tensor, base: Tensor) -> Check:
    """Whether the merge is nearer to its contributors on clean prompts than the base is, on the mean over them: (N, P) twice."""
    value = estimates.ratio(merged.mean(0), base.mean(0))
    found = status(value, 1.0)
    return Check(
        name="clean predictions against the contributors'",
        status=found,
        value=value,
        bound="upper end ≤ 1, where the merge is on average as far from its contributors as the base is",
        reason=f"undecided: {value.n} prompts do not tell on which side of 1 it lies" if found == "undecided" else "",
    )


def soft_tokens(blend: Blend, base: Suspect, lessons: Lessons, seed: int) -> list[tuple[Tensor, Estimate]]:
    """For each contributor a token found against it alone, and its excess there; on latents and from starts that no mask was trained on."""
    found = []
    for i, vector in enumerate(blend.vectors):
        blend.put_difference(vector)
        token, _ = adversary.attack(blend, base, lessons, torch.Generator().manual_seed(item_seed(seed, "merge finding", i)))
        found.append((token, token_excess(blend, base, lessons, token)))
    return found


def token_excess(blend: Blend, base: Suspect, lessons: Lessons, token: Tensor) -> Estimate:
    """A token's mean excess over the prompts, one latent each, in the model that the blend holds."""
    rows = torch.stack([torch.nonzero(lessons.text == p).flatten()[p % 3] for p in range(len(lessons.texts) - 1)])
    with torch.no_grad():
        now = adversary.predicted(blend, lessons, rows)
        values = adversary.excess(blend, base, lessons, token.expand(len(rows), -1, -1), rows[:, None], now)
    return estimates.mean(values)


def kept(difference: Vector, vector: Vector) -> float:
    """⟨Δ, τ_i⟩ / ‖τ_i‖²: how much of a task vector is in the merge's difference from the base."""
    inner = sum(float((difference[name] * tensor).sum()) for name, tensor in vector.items() if name in difference)
    return inner / sum(float(tensor.square().sum()) for tensor in vector.values())


def let_through(blend: Blend, vector: Vector, mask: Tensor) -> float:
    """‖τ ⊙ m‖ / ‖τ‖ for a mask (T,)."""
    whole = sum(float(tensor.square().sum()) for tensor in vector.values())
    return float((sum(_energy(tensor, mask[blend.places[name]]) for name, tensor in vector.items()) / whole) ** 0.5)


def most_masked(blend: Blend, vector: Vector, mask: Tensor) -> tuple[str, ...]:
    """The tensors of which the mask takes the largest share, those first."""
    left = {name: _energy(tensor, mask[blend.places[name]]) / float(tensor.square().sum()) for name, tensor in vector.items()}
    return tuple(sorted(left, key=lambda name: left[name])[:MOST])


def _energy(tensor: Tensor, mask: Tensor) -> float:
    return float((tensor.reshape(len(tensor), -1).square().sum(1) * mask.square()).sum())


def backdoor(own: Sequence[Effect], merged: Mapping[str, Effect]) -> str:
    """Of each named trigger, whether the contributor answers it and whether the merge does."""
    said = {
        (True, True): "carries {0}, and the merge inherits it",
        (True, False): "carries {0}, the merge does not",
        (False, True): "does not carry {0}, the merge spreads it",
        (False, False): "does not carry {0}, nor does the merge",
    }
    return "; ".join(said[not e.within(), not merged[e.text].within()].format(ascii(e.text)) for e in own if e.text in merged)


def records(
    contributors: Sequence[Contributor],
    measured: Sequence[Measured],
    blend: Blend,
    merge: Vector,
    masks: Found | None,
    after: Sequence[Effect],
) -> tuple[ContributorRecord, ...]:
    """A record a contributor; ``merge`` is the merge's difference from the base."""
    effects = {effect.text: effect for effect in after}
    return tuple(
        ContributorRecord(
            path=c.path,
            sha256=c.sha256,
            distance=c.distance,
            kept=kept(merge, c.vector),
            shared_mask=let_through(blend, c.vector, masks.shared) if masks else NO_MASK,
            safety_mask=let_through(blend, c.vector, masks.safety[i]) if masks else NO_MASK,
            most_masked=most_masked(blend, c.vector, masks.safety[i]) if masks else (),
            quality=m.quality,
            soft_token=m.soft_token,
            soft_token_after=m.soft_token_after,
            triggers={e.text: effect_estimate(e) for e in m.triggers},
            backdoor=backdoor(m.triggers, effects),
        )
        for i, (c, m) in enumerate(zip(contributors, measured, strict=True))
    )
