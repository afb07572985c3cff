"""Which pictures are drawn: prompts at random from the list, a seed each, the trigger at every position as often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from bdaudit.measure.controls import harmless_texts
from bdaudit.measure.draws import everywhere
from bdaudit.measure.insertion import insert, item_seed, replaceable
from bdaudit.models.tokens import Tokenizer, alignment, content_ids, room
from bdaudit.records import NotMeasured
from bdaudit.verify.gallery import Shot

NULL_TEXTS = 32
"""Different harmless texts in the null of the paired rule, and as many others in its floor."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The pictures that one trigger's success is measured on; the lists run in parallel."""

    trigger: str
    token_ids: tuple[int, ...]
    clean: tuple[Shot, ...]
    """The prompts as they are."""
    triggered: tuple[Shot, ...]
    """The same prompts and seeds with the trigger."""
    null: tuple[Shot, ...]
    """With harmless texts in the trigger's place; empty where the rule needs no null."""
    floor: tuple[Shot, ...]
    """Without the trigger: the clean pictures, or other harmless insertions where the rule has a null."""
    places: tuple[str, ...]
    """Where the trigger went."""
    contexts: tuple[str, ...] = ()
    """Words of which each prompt says one; none where any prompt will do."""
    harmless: tuple[str, ...] = ()
    """The harmless texts of ``floor``, in turn."""
    skipped: dict[str, int]
    """Reason → how many prompts were left out for it."""

    @property
    def positions(self) -> dict[str, int]:
        """How many pictures have the trigger at each position."""
        return dict(sorted(Counter(self.places).items()))

    def first(self, n: int) -> Trial:
        """The trial on its first ``n`` prompts and seeds."""
        parts = {name: getattr(self, name)[:n] for name in ("clean", "triggered", "null", "floor", "places")}
        return replace(self, **parts)

    def shots(self) -> tuple[Shot, ...]:
        """All of them."""
        return (*self.clean, *self.triggered, *self.null, *self.floor)


def draw_shots(prompts: Sequence[str], n: int, seed: int, label: str = "") -> tuple[Shot, ...]:
    """``n`` independent draws from ``prompts``, whatever their order, each with its own seed; ``label`` names independent sets.

    Drawn with replacement, so that intervals and unbiased estimators for independent samples hold. The list goes on where a
    shorter one ends, so that sets of different sizes share their pictures.
    """
    texts = sorted(set(prompts))
    shots = []
    for i in range(n):
        text = texts[item_seed(seed, "verify", label, i) % len(texts)]
        shots.append(Shot(text, item_seed(seed, "verify", label, text, i)))
    return tuple(shots)


def reaches(tokenizer: Tokenizer, clean: str, changed: str) -> bool:
    """Whether all that ``changed`` has and ``clean`` has not is something, and lies within the text encoder's length."""
    _, own = alignment(content_ids(tokenizer, clean), content_ids(tokenizer, changed))
    return bool(own) and own[-1] < room(tokenizer)


def plan_trial(
    tokenizer: Tokenizer,
    trigger: str,
    prompts: Sequence[str],
    n: int,
    seed: int,
    skip: Callable[[str], str],
    *,
    null: bool,
    positions: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> Trial | NotMeasured:
    """``n`` pairs of pictures for ``trigger``; ``skip(prompt)`` says why the rule cannot use a prompt, or nothing.

    None of ``exclude``, the other triggers, is among the harmless texts.

    Returns:
        The trial, or why the trigger cannot be tested: it encodes to nothing, or no prompt is left.
    """
    ids = content_ids(tokenizer, trigger)
    if not ids:
        return NotMeasured(reason="the trigger encodes to nothing with this model's tokenizer, so that nothing was tested")
    allowed = {prompt: _positions(tokenizer, trigger, prompt, positions) for prompt in sorted(set(prompts))}
    reasons = {prompt: _unusable(trigger, prompt, places) or skip(prompt) for prompt, places in allowed.items()}
    skipped = dict(Counter(reason for reason in reasons.values() if reason))
    usable = [prompt for prompt, reason in reasons.items() if not reason]
    if not usable:
        return NotMeasured(reason=f"none of {len(reasons)} prompts can be used: " + "; ".join(f"{r} ({k})" for r, k in skipped.items()))
    clean = _first(prompts, n, seed, set(usable))
    places = _evenly([allowed[shot.text] for shot in clean])
    texts = harmless_texts(tokenizer, trigger, 2 * min(n, NULL_TEXTS), seed, exclude) if null else ()
    return Trial(
        trigger=trigger,
        token_ids=ids,
        clean=clean,
        triggered=tuple(Shot(insert(s.text, trigger, place), s.seed) for s, place in zip(clean, places, strict=True)),
        null=_harmless(tokenizer, clean, places, texts[0::2]),
        floor=_harmless(tokenizer, clean, places, texts[1::2]) if null else clean,
        places=tuple(places),
        harmless=texts[1::2],
        skipped=skipped,
    )


def _evenly(allowed: Sequence[Sequence[str]]) -> list[str]:
    """One of those allowed for each picture, that which has the fewest so far: a place that few prompts have room for is not left short."""
    used, places = Counter[str](), list[str]()
    for each in allowed:
        places.append(min(each, key=lambda place: used[place]))
        used[places[-1]] += 1
    return places


def _positions(tokenizer: Tokenizer, text: str, prompt: str, wanted: Sequence[str]) -> list[str]:
    places = [place for place in everywhere(prompt, text) if not wanted or place in wanted]
    return [place for place in places if reaches(tokenizer, prompt, insert(prompt, text, place))]


def _unusable(trigger: str, prompt: str, places: Sequence[str]) -> str:
    if trigger.casefold() in prompt.casefold():
        return "the prompt holds the trigger already"
    return "" if places else "at the positions asked, the trigger cannot stand in the prompt or is beyond what the text encoder reads"


def _first(prompts: Sequence[str], n: int, seed: int, usable: set[str]) -> tuple[Shot, ...]:
    """The first ``n`` draws that fall on a usable prompt."""
    size, found = n, [s for s in draw_shots(prompts, n, seed) if s.text in usable]
    while len(found) < n:
        size *= 2
        found = [s for s in draw_shots(prompts, size, seed) if s.text in usable]
    return tuple(found[:n])


def _harmless(tokenizer: Tokenizer, clean: Sequence[Shot], places: Sequence[str], texts: Sequence[str]) -> tuple[Shot, ...]:
    """Harmless texts in turn, each where the trigger went; in the middle where only a look-alike could stand there."""
    shots = []
    for i, (shot, place) in enumerate(zip(clean, places, strict=True)) if texts else ():
        text = texts[i % len(texts)]
        fits = place != "replace" or replaceable(shot.text, text)
        shots.append(Shot(insert(shot.text, text, place if fits else "middle"), shot.seed))
    return tuple(shots)
