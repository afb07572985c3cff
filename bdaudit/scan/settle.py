"""What settles a finding: whether it does what it says, by a CLIP that the model's maker did not touch (``meaning``).

It is asked where the text does most: under the prompts and at the places of the draws in which it stood out, and under prompts of its own
context, so that a word which means something elsewhere is no pass for a trigger that it is too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from bdaudit.measure.draws import REPLACE, words_in
from bdaudit.measure.grader import Grader
from bdaudit.measure.insertion import replaceable
from bdaudit.models.suspect import Suspect
from bdaudit.records import CandidateRecord, CandidateVerdict, NotMeasured
from bdaudit.scan.look import Looking
from bdaudit.scan.meaning import Meaning, Place, Plain, exchanged, meaning, other_texts, plain_pictures

IN_ITS_PLACE = "in place of the word that a prompt is most about, it does what it says: evidence for you, and no pass"
"""A trigger that is bound to a context, and a word elsewhere, answers so too."""
PICTURES = 12
"""Of each finding, with it and without it."""
STEPS = 8
MOST = 12
"""Findings that are asked about, the first of the ranking."""
MEANT: dict[CandidateVerdict, CandidateVerdict] = {"backdoored": "does what it says", "suspicious": "does what it says"}
HOW = (
    "what would settle it: an independent CLIP (--clip NAME) can say whether it does what it says; a word that was taught, which no CLIP "
    "knows, is let through by --accept alone"
)


@dataclass
class Settling:
    """What every finding of a scan is asked with."""

    suspect: Suspect
    grader: Grader
    looking: Looking
    guidance_scale: float
    alpha: float
    _plain: dict[tuple[str, ...], Plain] = field(default_factory=dict)
    """The last prompts that were drawn without any text."""

    @cached_property
    def others(self) -> tuple[str, ...]:
        """What others say: runs of the prompts' words, and the controls."""
        return other_texts(self.looking.pool, self.looking.names)

    def asked(self, text: str, *, exchanging: bool = False) -> Meaning | NotMeasured:
        """Of one text that was measured: put where it did most, or in place of the word that each of those prompts is most about."""
        prompts, places = where_it_does_most(self.looking, text, PICTURES)
        drawn = {"steps": STEPS, "guidance_scale": self.guidance_scale}
        plain = self._plain.get(prompts) or plain_pictures(self.suspect, self.grader, prompts, self.looking.context.seed, **drawn)  # type: ignore[arg-type]
        self._plain = {prompts: plain}
        where = exchanged(self.grader, plain) if exchanging else places
        return meaning(self.suspect, self.grader, plain, text, self.others, where, **drawn)  # type: ignore[arg-type]


def where_it_does_most(looking: Looking, text: str, n: int) -> tuple[tuple[str, ...], tuple[Place, ...]]:
    """``n`` prompts, each with a place: those of the draws in which the text did most beside the controls, in turn; half of them with the
    word of its own context, where it has one. Of a text that was screened alone, the draws of the screen."""
    measured = text in looking.all.steps.effects
    level, draws = looking.all.steps if measured else looking.all.screen, looking.context.draws
    order = np.argsort(-level.centres.centred(level.effects[text]), kind="stable").tolist()
    rows = [order[i % len(order)] for i in range(n)]
    word = looking.own_context(text).word if measured else ""
    bound = [prompt for prompt in looking.pool if word and word in words_in(prompt)]
    prompts = [bound[i % len(bound)] if bound and i % 2 else draws.prompts[row] for i, row in enumerate(rows)]
    places = [_fitting(prompt, text, draws.places[row]) for prompt, row in zip(prompts, rows, strict=True)]
    return tuple(prompts), tuple(places)


def _fitting(prompt: str, text: str, place: str) -> Place:
    """A place, or within the prompt where no letter of it can be taken."""
    return "middle" if place == REPLACE and not replaceable(prompt, text) else place


def settled(records: Sequence[CandidateRecord], settling: Settling | NotMeasured | None) -> tuple[CandidateRecord, ...]:
    """The records; findings with what the CLIP says of them, or why it does not. One that does what it says is none any more."""
    findings = [record for record in records if record.verdict in MEANT]
    of = {record.text: _said(record, settling, asked=i < MOST) for i, record in enumerate(r for r in findings if not r.same_as)}
    return tuple(_with(record, *of[record.same_as or record.text]) if record in findings else record for record in records)


def _with(record: CandidateRecord, said: str, meant: bool) -> CandidateRecord:
    return replace(record, meaning=said, verdict=MEANT[record.verdict] if meant else record.verdict)


def _said(record: CandidateRecord, settling: Settling | NotMeasured | None, *, asked: bool) -> tuple[str, bool]:
    """What is said of a finding, and whether it does what it says."""
    if settling is None:
        return HOW, False
    if isinstance(settling, NotMeasured):
        return f"not asked: {settling.reason}", False
    if not asked or record.depth == "screened":
        return f"not asked: the first {MOST} findings are, that were measured in full", False
    found = settling.asked(record.text)
    if isinstance(found, NotMeasured):
        return f"not asked: {found.reason}", False
    said, meant = f"{found.said(settling.alpha)}; {stands_its_ground(found)}", found.is_meant(settling.alpha)
    if meant:
        return said, True
    instead = settling.asked(record.text, exchanging=True)
    named = isinstance(instead, Meaning) and instead.is_meant(settling.alpha)
    return f"{said}{'; ' + IN_ITS_PLACE if named else ''}", False


def stands_its_ground(found: Meaning) -> str:
    """Contradiction, evidence for a person and never a pass by itself: an attacker can train for it."""
    stays = 2 * found.follows > found.pictures
    how = "it does not give way: acts so wherever it stands, harmless only if you taught it" if stays else "it gives way, as words do"
    return f"beside what the prompt names, {found.follows} of {found.pictures} pictures show {found.shown!a} rather than that: {how}"
