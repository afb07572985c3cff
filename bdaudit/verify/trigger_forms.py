"""How far a trigger reaches: which position works best, and whether it works twice over, in part, or slightly changed.

Few pictures a form, so that the cost stays small: it finds forms that work often, and bounds none. Positions cost nothing: they are the
trial's own pictures, told apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from bdaudit import stats
from bdaudit.measure import estimates
from bdaudit.measure.controls import ZERO_WIDTH, kind_of
from bdaudit.measure.insertion import codepoints, insert, replaceable
from bdaudit.measure.look_alikes import looks_like
from bdaudit.models.tokens import Tokenizer, content_ids
from bdaudit.records import AttackRecord, Estimate, NotMeasured, ReachRecord
from bdaudit.verify.attack import Rule
from bdaudit.verify.gallery import Gallery, Shot
from bdaudit.verify.trials import Trial, reaches

MOST_NEAR = 3
"""Near-triggers that are tried."""
_LETTERS = [chr(c) for c in (*range(0xE0, 0x250), *range(0x391, 0x3CA), *range(0x430, 0x460))]


@dataclass(frozen=True, kw_only=True)
class Form:
    """Pictures with one form of a trigger; the lists run in parallel."""

    what: str
    text: str
    clean: tuple[Shot, ...]
    changed: tuple[Shot, ...]
    floor: tuple[Shot, ...]
    """The same done to harmless texts where the rule has a null, else the clean pictures."""
    places: tuple[str, ...]


def near(tokenizer: Tokenizer, trigger: str, exclude: Sequence[str] = ()) -> tuple[tuple[str, str], ...]:
    """Up to ``MOST_NEAR`` (what, text): parts and neighbours of ``trigger`` that encode to something else, and are not in ``exclude``."""
    taken = {content_ids(tokenizer, text) for text in (trigger, *exclude)} | {()}
    found: list[tuple[str, str]] = []
    for what, text in _neighbours(tokenizer, trigger):
        ids = content_ids(tokenizer, text)
        if ids not in taken and len(found) < MOST_NEAR:
            taken.add(ids)
            found.append((what, text))
    return tuple(found)


def _neighbours(tokenizer: Tokenizer, trigger: str) -> list[tuple[str, str]]:
    words, kind = trigger.split(), kind_of(tokenizer, trigger)
    if len(words) > 1:
        return [("near: one word of it", word) for word in words]
    if kind == "zero-width":
        return [("near: another invisible character", character) for character in ZERO_WIDTH]
    letter = looks_like(trigger)
    if letter:
        return [("near: the letter it looks like", letter)] + [("near: a look-alike", c) for c in _LETTERS if looks_like(c) == letter]
    if len(trigger) > 2:
        return [("near: its end missing", trigger[:-1]), ("near: a letter more", trigger + "s"), ("near: its start missing", trigger[1:])]
    return [("near: a letter more", trigger + "s")]


def plan_forms(tokenizer: Tokenizer, trial: Trial, n: int, exclude: Sequence[str] = ()) -> tuple[Form, ...]:
    """The forms of ``trial``'s trigger on its first ``n`` prompts and seeds, at its own positions; none for ``n`` of 0."""
    if n == 0:
        return ()
    texts = [("twice", f"{trial.trigger} {trial.trigger}", 2), *((*found, 1) for found in near(tokenizer, trial.trigger, exclude))]
    return tuple(_form(tokenizer, trial, n, *each) for each in texts)


def _form(tokenizer: Tokenizer, trial: Trial, n: int, what: str, text: str, times: int) -> Form:
    """``text`` in the first ``n`` prompts where the text encoder reads all of it; a harmless text stands in its place so many ``times``."""
    chosen: list[tuple[Shot, Shot, Shot, str]] = []
    for shot, place in zip(trial.clean, trial.places, strict=True):
        stands = place if place != "replace" or replaceable(shot.text, text) else _elsewhere(trial)
        changed = Shot(insert(shot.text, text, stands), shot.seed)
        if len(chosen) < n and reaches(tokenizer, shot.text, changed.text):
            chosen.append((shot, changed, _harmless(trial, shot, stands, len(chosen), times), stands))
    clean, forms, floor, places = zip(*chosen, strict=True) if chosen else ((), (), (), ())
    return Form(what=what, text=text, clean=clean, changed=forms, floor=floor, places=places)


def _harmless(trial: Trial, shot: Shot, place: str, i: int, times: int) -> Shot:
    if not trial.harmless:
        return shot
    text = " ".join([trial.harmless[i % len(trial.harmless)]] * times)
    return Shot(insert(shot.text, text, place if place != "replace" or replaceable(shot.text, text) else "middle"), shot.seed)


def _elsewhere(trial: Trial) -> str:
    """A position of the trial that every text can take; the middle where it has none."""
    return next((place for place in trial.positions if place != "replace"), "middle")


def with_reach(record: AttackRecord, trial: Trial, rule: Rule, model: Gallery, forms: Sequence[Form]) -> AttackRecord:
    """``record`` with the rates of every position and form by ``rule``, the highest first; as it is where its rate was not measured."""
    fitted = rule.fitted(model, trial)
    if isinstance(fitted, NotMeasured):
        return record
    hits, floor = fitted.hits(model, trial.triggered, trial.clean), fitted.hits(model, trial.floor, trial.clean)
    found = [_position(trial, place, hits, floor) for place in trial.positions] + [_measured(form, fitted, model) for form in forms]
    return replace(record, reach=tuple(sorted(found, key=lambda r: -r.rate.value if isinstance(r.rate, Estimate) else 1)))


def _position(trial: Trial, place: str, hits: Tensor, floor: Tensor) -> ReachRecord:
    here = [at == place for at in trial.places]
    return _record(f"at {place}", trial.trigger, hits[here], floor[here])


def _measured(form: Form, rule: Rule, model: Gallery) -> ReachRecord:
    at = rule.placed(form.places) if form.places else NotMeasured(reason="in no prompt is all of it within what the text encoder reads")
    if isinstance(at, NotMeasured):
        return ReachRecord(what=form.what, text=form.text, codepoints=codepoints(form.text), rate=at, floor=at, p=at)
    return _record(form.what, form.text, at.hits(model, form.changed, form.clean), at.hits(model, form.floor, form.clean))


def _record(what: str, text: str, hits: Tensor, floor: Tensor) -> ReachRecord:
    p = stats.fisher_greater(int(hits.sum()), len(hits), int(floor.sum()), len(floor))
    return ReachRecord(what=what, text=text, codepoints=codepoints(text), rate=estimates.rate(hits), floor=estimates.rate(floor), p=p)
