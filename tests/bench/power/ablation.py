"""What each signal is worth: the scan's own measurements, judged once more without it. Numbers in, numbers out.

Who goes on to be measured further is as it was, since what was not measured cannot be judged: a signal's part in the screen stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch

import numpy as np

import bdaudit.scan.followed
import bdaudit.scan.level
import bdaudit.scan.run
from bdaudit.measure.text_effects import TextEffect
from bdaudit.scan.look import Looking
from bdaudit.scan.signals import ATTENTION, Array, Centres, Groups, centres_of
from bdaudit.scan.stratum import Stratum

SIGNALS = ("noise shift", "context shift", "common shift", "override", "state shift", *ATTENTION)
OUT: dict[str, tuple[str, ...]] = {name: (name,) for name in SIGNALS} | {"attention": tuple(ATTENTION), "paths": (), "context": ()}
"""What is left out → its signals of single steps."""
PARTS = ("steps", "paths")
"""Of the joint statistic; what a text does more in a few draws has a p of its own beside it."""


@contextmanager
def watched() -> Iterator[list[Looking]]:
    """The measurements of the scans that run meanwhile."""
    seen = list[Looking]()

    class Watched(Looking):
        def __post_init__(self) -> None:
            super().__post_init__()
            seen.append(self)

    with patch.object(bdaudit.scan.run, "Looking", Watched):
        yield seen


@dataclass(frozen=True)
class _Fewer(Centres):
    """Without some signals of single steps."""

    out: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name in super().names if name not in self.out)

    def raw(self, effect: TextEffect) -> Array:
        of = dict(zip(super().names, super().raw(effect), strict=True))
        return np.array([of[name] for name in self.names])


@contextmanager
def left_out(name: str) -> Iterator[None]:
    """What is learned from controls meanwhile, and what is judged by it, is without it."""
    kept, joint = [part != name for part in PARTS], bdaudit.scan.followed.joint

    def fewer(controls: Sequence[TextEffect], groups: Groups) -> Centres:
        of = centres_of(controls, groups)
        return _Fewer(of.draws, of.groups, of.group_centre, of.group_unit, OUT[name])

    def joined(*parts: float) -> float:
        return joint(*(part if keep else 0.0 for part, keep in zip(parts, kept, strict=True)))

    with patch.object(bdaudit.scan.level, "centres_of", fewer), patch.object(bdaudit.scan.followed, "joint", joined):
        yield


class _Again(Stratum):
    """The same controls and the same choice of what goes on, judged anew."""

    def __init__(self, first: Stratum, looking: Looking) -> None:
        super().__init__(first.controls)
        self.first, self.screen, self.goes_on = first, first.screen, first.goes_on
        self.go_on(first.steps.effects, tuple(looking._groups.values()), looking.context.seed)
        self.finish(looking.paths)

    @property
    def followed(self) -> dict[str, str]:
        return self.first.followed

    def p_of(self, text: str, kind: str, looking: Looking) -> float:
        selected, followed = self.first.score(text, kind) >= self.first.is_followed, text in looking.paths
        reached = self.reached(text, kind, looking.paths[text]) if followed else None
        return self.p(self.score(text, kind), reached, selected)


def without(looking: Looking, texts: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """What is left out → text → −log₁₀ of its p; ``texts`` has kinds."""
    found: dict[str, dict[str, float]] = {}
    for name in OUT:
        with left_out(name):
            again = {nothing: _Again(stratum, looking) for nothing, stratum in looking.strata.items()}
            of = {text: again[looking._for(kind) is looking.strata[True]] for text, kind in texts.items()}
            p = {text: of[text].p_of(text, kind, looking) for text, kind in texts.items()}
            told = p if name == "context" else {text: looking.both(text, texts[text], value) for text, value in p.items()}
            found[name] = {text: -float(np.log10(value)) for text, value in told.items()}
    return found
