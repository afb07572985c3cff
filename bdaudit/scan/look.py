"""From texts to what was found of each, coarse to fine: a few draws for all, the draws that are left for what stands out, and whole paths
for what stands out at last. Controls and candidates go through the same; ``tiers`` says why their p hold.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from bdaudit.config.effort import Spent
from bdaudit.measure.draws import REPLACE, Context, Draws, context_draws, groups_of, has_parts
from bdaudit.measure.look_alikes import looks_like
from bdaudit.measure.paths import PathEffect, Paths, make_paths
from bdaudit.measure.text_effects import TextEffect, joined
from bdaudit.scan.cached import followed as followed_paths
from bdaudit.scan.cached import measured
from bdaudit.scan.context import ScanContext
from bdaudit.scan.level import Harmless
from bdaudit.scan.looked import Depth, Look
from bdaudit.scan.signals import STATES, Array, context_raw, level_of, usual_in
from bdaudit.scan.stratum import Stratum, means_nothing, strata_of

USUAL = 2
"""Harmless texts that say what is usual in a context."""
TAMPERED = 2.2
"""How far the median of a kind may lie above that of all, in units, before nothing can be told from the controls: on 33 scans of trained
models it lay up to 1.0 above, on models of random weights up to 1.9, where every emoji had been made a trigger 2.5 to 3."""
ALWAYS = 5
"""Texts that are measured in full and followed along whole paths whatever their score, the first of the ranking."""


@dataclass
class Looking:
    """One scan's measurements, and what they say of a text."""

    context: ScanContext
    effort: Spent
    controls: Sequence[Harmless]
    pool: Sequence[str]
    """The prompts that there are."""
    strata: dict[bool, Stratum] = field(init=False)
    """Whether a text means nothing → what it is compared with."""
    paths: dict[str, PathEffect] = field(default_factory=dict)
    """Of the texts that were followed."""
    kinds: dict[str, str] = field(init=False)
    """Of controls and candidates."""
    contexts: dict[str, Array] = field(default_factory=dict)
    """Of these too, in the order of ``CONTEXT_SIGNALS``."""
    _drawn: dict[Context, tuple[Draws, Array]] = field(default_factory=dict)
    """Context → draws in it, and what is usual in each."""

    def __post_init__(self) -> None:
        self.strata = strata_of(self.controls)
        self.kinds = {control.text: control.kind for control in self.controls}

    def run(self, texts: Mapping[str, str], whole: Sequence[str] = ()) -> dict[str, Look]:
        """Text → what was found of it; ``texts`` has kinds, those of ``whole`` are measured in full whatever their score.

        Raises:
            ValueError: the controls give no null.
        """
        self.kinds = dict(texts) | self.kinds
        self._screen(list(texts))
        self._steps(texts, whole)
        self._follow(texts)
        return {text: self.of(text, kind) for text, kind in texts.items()}

    @cached_property
    def names(self) -> list[str]:
        """The controls' texts."""
        return [control.text for control in self.controls]

    @property
    def all(self) -> Stratum:
        """Of all controls: the yardstick by which texts of any kind are ranked, and the draws chosen in which they do most."""
        return self.strata[False]

    def _for(self, kind: str) -> Stratum:
        return self.strata[means_nothing(kind)]

    def _screen(self, texts: Sequence[str]) -> None:
        part = slice(self.effort.first)
        seen = self._measured("first", draws_of=part, texts=self.names, said="measuring harmless texts")
        seen |= self._measured("first", draws_of=part, texts=texts, said="screening")
        for stratum in self.strata.values():
            stratum.begin(seen, len(self.context.draws.part(part)))

    def _steps(self, texts: Mapping[str, str], whole: Sequence[str]) -> None:
        seed, rest = self.context.seed, slice(self.effort.first, None)
        further = list(dict.fromkeys(text for stratum in self.strata.values() for text in stratum.further(seed)))
        ranked = sorted(texts, key=lambda text: -self.all.screen.statistic(text, texts[text]))
        anyway = {*whole, *ranked[:ALWAYS]}
        on = [text for text, kind in texts.items() if text in anyway or self._for(kind).stands_out(text, kind)]
        seen = self._measured("further", draws_of=rest, texts=further, said="measuring harmless texts further", attention=True)
        seen |= self._measured("further", draws_of=rest, texts=on, said="measuring what stands out", attention=True)
        both = {text: joined(self.all.screen.effects[text], effect) for text, effect in seen.items()}
        for stratum in self.strata.values():
            stratum.go_on(both, tuple(self._groups.values()), seed)

    def _follow(self, texts: Mapping[str, str]) -> None:
        """Along whole paths, and on fresh draws in the context in which each did most."""
        controls = [text for stratum in self.strata.values() for text in stratum.followed]
        of = {text: self.all.score(text, kind) for text, kind in texts.items() if text in self.all.steps.effects}
        first = sorted(of, key=lambda text: -of[text])[:ALWAYS]
        on = [text for text in of if text in first or self.score(text, texts[text]) >= self._for(texts[text]).is_followed]
        usual = random.Random(f"usual {self.context.seed}").sample(
            [t for t in self.names if t not in controls and not looks_like(t)], USUAL
        )
        for part in (dict.fromkeys(controls), dict.fromkeys(text for text in on if text not in controls)):
            self.paths |= followed_paths(self.context, self._all_paths, list(part))
            self._in_context(list(part), usual)
        for stratum in self.strata.values():
            stratum.finish(self.paths, self.contexts)

    def _in_context(self, texts: Sequence[str], usual: Sequence[str]) -> None:
        """On fresh draws in the context in which each text did most."""
        own: dict[Context, list[str]] = {}
        for text in texts:
            own.setdefault(self.own_context(text), []).append(text)
        for context, texts_there in own.items():
            draws, there = self._drawn_in(context, usual)
            effects = measured(self.context, "context", draws, texts_there, attention=False, said="measuring in context", of=str(context))
            self.contexts |= {text: context_raw(effects[text], there, self._spread(text, context)) for text in texts_there}

    def _spread(self, text: str, context: Context) -> float:
        """How far apart what the text is compared with lies in a context."""
        centres = self._for(self.kinds[text]).steps.centres
        return float(centres.group_unit[centres.groups.index(self._groups[context])])

    def _drawn_in(self, context: Context, usual: Sequence[str]) -> tuple[Draws, Array]:
        """Draws in a context, and the shift that is usual in each."""
        if context not in self._drawn:
            of = self.context
            draws = context_draws(of.suspect, of.draws, self.pool, context, self.effort.context, of.seed)
            told = measured(of, "usual", draws, usual, attention=False, said="measuring in context", of=str(context))
            elsewhere = [float(np.mean(self.all.screen.centres.centred(self.all.screen.effects[text]))) for text in usual]
            self._drawn[context] = draws, usual_in(list(told.values()), elsewhere)
        return self._drawn[context]

    @cached_property
    def _all_paths(self) -> Paths:
        """One for each of the first draws."""
        return make_paths(self.context.suspect, self.context.draws.part(slice(self.effort.paths)), self.effort.steps, self.context.seed)

    def own_context(self, text: str) -> Context:
        """Where the text did most, beside the controls; apart alone where it has parts."""
        units = self._units(text)
        possible = [context for context in self._groups if context.place != REPLACE or has_parts(text)]
        return max(possible, key=lambda context: (round(units[context], 3), context))  # as good as equal is equal, on any machine

    def _units(self, text: str) -> dict[Context, float]:
        """What the text did in each context, beside what it is compared with."""
        level = self._for(self.kinds[text]).steps
        centres, effect = level.centres, level.effects[text]
        units = ((centres.by_group(effect) - centres.group_centre) / centres.group_unit).tolist()
        of = dict(zip(centres.groups, units, strict=True))
        return {context: of[rows] for context, rows in self._groups.items()}

    @cached_property
    def _groups(self) -> dict[Context, tuple[int, ...]]:
        return groups_of(self.context.draws)

    @property
    def loud_kinds(self) -> dict[str, float]:
        """Kinds of harmless texts that as a kind do more than most others do, in units: a sign that the controls were tampered with."""
        return {kind: float(offset) for kind, offset in self.all.screen.null.loud.items() if offset > TAMPERED}

    def score(self, text: str, kind: str) -> float:
        """The statistic of single steps beside what the text is compared with, or where one stands that did not go on."""
        return self._for(kind).score(text, kind)

    def of(self, text: str, kind: str) -> Look:
        """What was found of a text that was among those measured."""
        stratum = self._for(kind)
        measured_on, score = text in stratum.steps.effects, stratum.score(text, kind)
        level, reached = stratum.steps if measured_on else stratum.screen, None
        signals = level.signals(text, kind)
        depth: Depth = "measured" if measured_on else "screened"
        if text in self.paths:
            depth, reached = "followed", stratum.reached(text, kind, self.paths[text], self.contexts[text])
            signals |= stratum.last.signals(reached)
        centred = float(np.mean(level.centres.centred(level.effects[text])))
        encoded = min(level.moved.p(level_of(level.effects[text])), signals[STATES].p)
        effect, p = math.exp(min(centred / 2, 50.0)), stratum.p(score, reached, score >= stratum.is_followed)
        score = level.statistic(text, kind) if measured_on else score
        joint = stratum.last.score(reached) if reached else None
        return Look(depth, score, joint, p, signals, effect, encoded, level.effects[text].truncated)

    def control_p(self) -> list[float]:
        """The p of each control, by the rule that the candidates are judged by."""
        return [p for nothing in self.strata for p in self._control_p(nothing)]

    def _control_p(self, nothing: bool) -> list[float]:
        stratum = self.strata[nothing]
        own = [means_nothing(control.kind) == nothing for control in stratum.controls]
        return [stratum.last.tier.p(score) for score, of in zip(stratum.last.tier.scores, own, strict=True) if of]

    @property
    def loud(self) -> list[str]:
        """Controls far beyond all that is usual, in either comparison."""
        found = {text for stratum in self.strata.values() for text in stratum.loud}
        return [text for text in self.names if text in found]

    def p_of(self, text: str, kind: str) -> float:
        """The p of one more text by single steps, measured on all draws."""
        stratum = self._for(kind)
        first = self._measured("first", draws_of=slice(self.effort.first), texts=[text], said="")[text]
        rest = self._measured("further", draws_of=slice(self.effort.first, None), texts=[text], said="", attention=True)[text]
        stratum.screen.effects[text] = first
        stratum.steps.effects[text] = joined(first, rest)
        return stratum.steps_tier.p(stratum.score(text, kind))

    def _measured(self, name: str, *, draws_of: slice, texts: Sequence[str], said: str, attention: bool = False) -> dict[str, TextEffect]:
        return measured(self.context, name, self.context.draws.part(draws_of), texts, attention=attention, said=said)
