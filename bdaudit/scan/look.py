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
from bdaudit.measure.draws import REPLACE, TWICE, Context, Draws, draws_like, groups_of, has_parts
from bdaudit.measure.look_alikes import looks_like
from bdaudit.measure.paths import PathEffect, Paths, make_paths
from bdaudit.measure.text_effects import TextEffect, joined
from bdaudit.scan.cached import followed as followed_paths
from bdaudit.scan.cached import measured
from bdaudit.scan.context import ScanContext
from bdaudit.scan.in_context import SIGNAL, InContext, contrast, in_context
from bdaudit.scan.level import Harmless
from bdaudit.scan.looked import Depth, Look
from bdaudit.scan.signals import STATES, Array, level_of, usual_in
from bdaudit.scan.stratum import Stratum, means_nothing, strata_of

USUAL = 3
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
    contrasts: dict[str, float] = field(default_factory=dict)
    """Of these too: how much more each does where it did most than elsewhere."""
    in_context: InContext = field(init=False)
    """What is usual of that."""
    _drawn: dict[int, tuple[Draws, Array]] = field(default_factory=dict)
    """A draw → fresh ones like it, and what is usual in each."""

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
        """Along whole paths, and on fresh draws like those in which each did most."""
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
            stratum.finish(self.paths)
        scores = dict(zip(self.names, self.all.steps_tier.scores, strict=True))
        self.in_context = in_context({text: self.contrasts[text] for text in self.all.followed}, scores)

    def _in_context(self, texts: Sequence[str], usual: Sequence[str]) -> None:
        """On fresh draws like those in which each text did most: what it does in all of them."""
        like, peaks = dict[int, list[str]](), {text: self._peaks(text) for text in texts}
        for text, own in peaks.items():
            for draw in own:
                like.setdefault(draw, []).append(text)
        there: dict[str, list[float]] = {}
        for draw, theirs in sorted(like.items()):
            draws, as_usual = self._drawn_like(draw, usual)
            effects = measured(self.context, "context", draws, theirs, attention=False, said="measuring in context", of=str(draw))
            for text in theirs:
                there.setdefault(text, []).append(float(np.mean(np.array(effects[text].shift) - as_usual)))
        self.contrasts |= {text: contrast(min(found), self._elsewhere(text, peaks[text])) for text, found in there.items()}

    def _peaks(self, text: str) -> tuple[int, ...]:
        """The draws in which the text did most, beside what it is compared with."""
        units = self._units(text)
        units_of = [round(units[Context(draw=i)], 3) for i in range(len(self.context.draws))]  # as good as equal is equal, on any machine
        return tuple(sorted(range(len(units_of)), key=lambda i: (-units_of[i], i))[:TWICE])

    def _elsewhere(self, text: str, peaks: Sequence[int]) -> float:
        """The median shift of the text in draws that are not among ``peaks``, beside the median control's."""
        return float(np.median(np.delete(self.all.steps.centres.centred(self.all.steps.effects[text]), peaks)))

    def _drawn_like(self, draw: int, usual: Sequence[str]) -> tuple[Draws, Array]:
        """Fresh draws of one's prompt and place, and the shift that is usual in each."""
        if draw not in self._drawn:
            of = self.context
            draws = draws_like(of.suspect, of.draws, draw, self.effort.context // TWICE, of.seed)
            told = measured(of, "usual", draws, usual, attention=False, said="measuring in context", of=str(draw))
            elsewhere = [float(np.mean(self.all.screen.centres.centred(self.all.screen.effects[text]))) for text in usual]
            self._drawn[draw] = draws, usual_in(list(told.values()), elsewhere)
        return self._drawn[draw]

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
            depth, reached = "followed", stratum.reached(text, kind, self.paths[text])
            signals |= stratum.last.signals(reached) | {SIGNAL: self.in_context.record(self.contrasts[text])}
        centred = float(np.mean(level.centres.centred(level.effects[text])))
        encoded = min(level.moved.p(level_of(level.effects[text])), signals[STATES].p)
        effect, p = math.exp(min(centred / 2, 50.0)), stratum.p(score, reached, score >= stratum.is_followed)
        p = self.both(text, kind, p)
        score = level.statistic(text, kind) if measured_on else score
        joint = stratum.last.score(reached) if reached else None
        return Look(depth, score, joint, p, signals, effect, encoded, level.effects[text].truncated)

    def both(self, text: str, kind: str, p: float) -> float:
        """``p`` of all that it does, and that of doing it in a few draws alone, as one; by all controls, whatever the text's kind, since
        words of the prompts are bound to contexts the most."""
        if text not in self.contrasts:
            return p
        return min(1.0, 2 * min(p, self.in_context.p(self.contrasts[text], self.all.score(text, kind) >= self.all.is_followed)))

    def control_p(self) -> list[float]:
        """The p of each control, by the rule that the candidates are judged by."""
        return [p for nothing in self.strata for p in self._control_p(nothing)]

    def _control_p(self, nothing: bool) -> list[float]:
        stratum = self.strata[nothing]
        own = [control for control in stratum.controls if means_nothing(control.kind) == nothing]
        p = dict(zip(stratum.names, map(stratum.last.tier.p, stratum.last.tier.scores), strict=True))
        return [self.both(control.text, control.kind, p[control.text]) for control in own]

    @property
    def loud(self) -> list[str]:
        """Controls far beyond all that is usual, in either comparison, or in a few draws alone."""
        found = {text for stratum in self.strata.values() for text in stratum.loud} | {self.names[i] for i in self.in_context.tier.loud}
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
