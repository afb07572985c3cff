"""From what a text changed draw by draw to one number a signal. Numbers in, numbers out.

A figure of a draw is centred on the median of the controls in that draw; its mean over draws is a signal. The *context shift* is the
largest mean shift over a group of draws that share a word, a part of the path or a place, in the controls' own units: a trigger that is
bound to a context is not averaged away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from bdaudit.measure.paths import PathEffect
    from bdaudit.measure.text_effects import TextEffect

UPPER, STANDARD = 0.95, 1.6449
"""The quantile of harmless texts that gives a signal its unit, and what it is of a normal one in standard deviations."""

Array = NDArray[np.float64]
Groups = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Centres:
    """What the controls' figures are, draw by draw and group by group."""

    draws: Mapping[str, Array]
    """Figure → (D,)."""
    groups: Groups
    group_centre: Array
    """(G,)."""
    group_unit: Array
    """(G,)."""

    @property
    def names(self) -> tuple[str, ...]:
        """The signals, in the order of ``raw``."""
        attention = tuple(name for name, figure in ATTENTION.items() if figure in self.draws)
        return ("noise shift", "context shift", "common shift", "override", STATES, *attention)

    def raw(self, effect: TextEffect) -> Array:
        """(S,)."""
        mean = {figure: float(np.mean(np.array(getattr(effect, figure)) - centre)) for figure, centre in self.draws.items()}
        context = float(((self.by_group(effect) - self.group_centre) / self.group_unit).max())
        rest = [mean[figure] for figure in ATTENTION.values() if figure in mean]
        return np.array([mean["shift"], context, effect.common, mean["override"], mean["states"], *rest])

    def centred(self, effect: TextEffect) -> Array:
        """(D,): the shift of each draw, beside the median control's."""
        centred: Array = np.array(effect.shift) - self.draws["shift"]
        return centred

    def by_group(self, effect: TextEffect) -> Array:
        """(G,): the mean of it over each group."""
        shift = self.centred(effect)
        return np.array([shift[list(rows)].mean() for rows in self.groups])


STATES = "state shift"
ATTENTION = {"attention share": "share", "assimilation": "assimilation"}
"""Signal → its figure, of what is measured where attention is recorded."""


def centres_of(controls: Sequence[TextEffect], groups: Groups) -> Centres:
    """The controls' medians, and the groups' units."""
    figures = ("shift", "override", "states", *(figure for figure in ATTENTION.values() if getattr(controls[0], figure)))
    draws = {figure: np.median([getattr(effect, figure) for effect in controls], axis=0) for figure in figures}
    bare = Centres(draws, groups, np.zeros(len(groups)), np.ones(len(groups)))
    by_group = np.array([bare.by_group(effect) for effect in controls])
    return Centres(draws, groups, np.median(by_group, axis=0), np.maximum(unit(by_group), 1e-6))


def unit(rows: Array) -> Array:
    """(N, …) → (…): from the median to the upper quantile, in standard deviations of a normal one."""
    result: Array = (np.quantile(rows, UPPER, axis=0) - np.median(rows, axis=0)) / STANDARD
    return result


PATH_SIGNALS = ("path shift", "path peak", "path common")

PEAKS = 2
"""Paths of which the peak is the mean: the largest of one may be a picture that tipped over."""


@dataclass(frozen=True)
class Along:
    """What is usual along each path."""

    centre: Array
    """(P,)."""
    units: Array
    """(P,)."""

    def raw(self, effect: PathEffect) -> Array:
        """(3,) in the order of ``PATH_SIGNALS``: the shift of the end latents beside what is usual on each path, the mean and that of the
        ``PEAKS`` paths in which it is largest, and what they have in common."""
        beside = np.sort((np.array(effect.shift) - self.centre) / self.units)
        return np.array([beside.mean(), beside[-PEAKS:].mean(), effect.common])


def along(controls: Sequence[PathEffect]) -> Along:
    """What is usual of ``controls``."""
    rows = np.array([effect.shift for effect in controls])
    return Along(np.median(rows, axis=0), np.maximum(unit(rows), 1e-6))


def usual_in(effects: Sequence[TextEffect], elsewhere: Sequence[float]) -> Array:
    """(D,): the median shift of harmless texts in each draw, each less what it is ``elsewhere``: it matters little which they are."""
    usual: Array = np.median([np.array(effect.shift) - own for effect, own in zip(effects, elsewhere, strict=True)], axis=0)
    return usual


def level_of(effect: TextEffect) -> float:
    """How far the text moves the encoding, as a logarithm, in the mean over draws."""
    return float(np.mean(effect.level))
