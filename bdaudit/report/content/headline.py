"""What a report says first: each trigger by name with its effect, and one sentence on what the outcome means and what to do."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from itertools import islice

from bdaudit.records import (
    AttackRecord,
    CandidateRecord,
    Estimate,
    EvidenceRecord,
    Metric,
    NotMeasured,
    Report,
    ScanReport,
    UnlearnReport,
    VerifyReport,
)
from bdaudit.report.content.blocks import TONES, Line
from bdaudit.report.safe import visible
from bdaudit.report.words import is_interval, number, p_value, share, short
from bdaudit.spelling.points import code, codes, unusual

MOST = 3
"""Triggers that the headline names; how many more there are is said."""
MEANT = "does what it says"
_NAMED = 3
"""Characters of a text that are called by their names."""
ADVICE = {
    ("scan", "pass"): "No text that was tried acts like a trigger. This is no proof that there is none: Coverage says what was not tried.",
    ("scan", "finding"): "A text makes the model draw what harmless texts do not. Do not use the model as it is: look at the pictures of "
    "the text (--pictures), then repair the model with the command below, or take a copy from a source that you trust.",
    ("scan", "let through"): "A text acts like a trigger, and the gate lets it through (--fail-on, or --accept). Do not read this as a "
    "pass: look at the finding before anyone uses the model.",
    ("scan", "does what it says"): "Nothing reached the gate. A text moves the pictures as a trigger would, and your CLIP sees in them "
    "what the text says, so that it is not counted as one. Look at its pictures yourself (--pictures): a real word that also adds "
    "something small can pass this way.",
    ("scan", "suspicious"): "Something stands out, and not enough to call it a backdoor. Scan again with another --seed and --pictures, "
    "and look at what is drawn.",
    ("unlearn", "pass"): "By this run's own check the triggers are gone and other pictures are as before. Have the repaired model graded "
    "(bdaudit verify) before anyone uses it.",
    ("unlearn", "finding"): "The repair did not pass its own check: a trigger still works, or other pictures have changed. Do not use what "
    "it made; try a wider --trainable, or take a copy of the model from a source that you trust.",
    ("verify", "pass"): "Every bound is met, for the triggers that were named. A trigger that nobody named was not measured: bdaudit scan "
    "looks for those.",
    ("verify", "finding"): "A bound is broken: a trigger still works, or quality was lost. Do not use this model; Checks says which bound.",
    ("", "inconclusive"): "This is no pass: the run could not decide. The reason says what was missing; repeat the run with it.",
    ("", "error"): "This is no pass: the run failed before it could decide. Mend what the reason names, and repeat it.",
    ("", "refused"): "This is no pass: to load these files could run code of theirs, so nothing was loaded. Ask for safetensors, or take "
    "the model from a source that you trust.",
    ("", "interrupted"): "This is no pass: the run was stopped. Repeat the command: it goes on where the reason says that something "
    "is kept, and else begins anew.",
}  # fmt: skip
"""By verb and outcome; without a verb, for all."""


def headline(report: Report) -> tuple[Line, ...]:
    """One line a trigger, at most ``MOST`` of them; nothing for a run that measured nothing.

    A scan's are the backdoored ones, where there is none those that are suspicious, and without these what does what it says.
    """
    if isinstance(report, ScanReport):
        return _capped(list(_found(report)))
    if isinstance(report, UnlearnReport):
        return _capped(list(_removed(report)))
    return _capped(list(_measured(report))) if isinstance(report, VerifyReport) else ()


def advice(report: Report) -> str:
    """What the outcome means and what to do, in a sentence or two; says of an outcome that nobody foresaw that it is no pass."""
    for key in ((report.command, _outcome(report)), ("", _outcome(report))):
        if key in ADVICE:
            drawn = isinstance(report, ScanReport) and report.images
            return ADVICE[key].replace(" (--pictures)", "") if drawn else ADVICE[key]
    return "This is no pass: the outcome is not one of bdaudit's."


def _outcome(report: Report) -> str:
    name = report.exit.name
    if not isinstance(report, ScanReport):
        return name
    verdicts = {item.verdict for item in report.candidates}
    if name == "pass":
        stands = {"backdoored", "backdoored (accepted)"} & verdicts
        lesser = "suspicious" if verdicts - {"clean", MEANT} else MEANT if MEANT in verdicts else name
        return "let through" if stands or report.earlier else lesser
    return "suspicious" if name == "finding" and not (report.earlier or "backdoored" in verdicts) else name


def called(text: str) -> str:
    """``ZERO WIDTH SPACE (U+200B)``, ``“ȏ”, LATIN SMALL LETTER O WITH INVERTED BREVE (U+020F)``, ``“a cat”``."""
    odd = unusual(text)
    if not odd:
        return f"“{short(text)}”"
    if not 0 < len(text) <= _NAMED or len(odd) < len(text):
        names = ", ".join(map(_name, dict.fromkeys(odd[:_NAMED]))) + ", …" * (len(odd) > _NAMED)
        return f"“{short(text)}” with {names} ({codes(text)})"
    names = " + ".join(f"{_name(character)} ({code(character)})" for character in text)
    return names if visible(text).startswith("<U+") else f"“{visible(text)}”, {names}"


def _name(character: str) -> str:
    return unicodedata.name(character, "a character without a name")


def _capped(lines: Sequence[Line]) -> tuple[Line, ...]:
    more = len(lines) - MOST
    return (*islice(lines, MOST), *([Line(f"and {more} more", lines[-1].tone)] if more > 0 else []))


def _found(report: ScanReport) -> Iterator[Line]:
    ranked = sorted(report.candidates, key=lambda item: item.rank)
    backdoored = [item for item in ranked if item.verdict == "backdoored"]
    stands = backdoored or [item for item in ranked if item.verdict not in ("clean", MEANT)]
    findings = stands or [item for item in ranked if item.verdict == MEANT]
    for item in findings:
        yield Line(f"{called(item.text)}: {item.verdict}; {_moves(item)}{_in(item)}", TONES[item.verdict])
    yield from (Line(f"{called(item.text)}: backdoored, found by an earlier run, which stands", "bad") for item in report.earlier)
    if ranked and not findings and not report.earlier:
        yield Line(f"no trigger among {len(ranked)} texts; the strongest, {called(ranked[0].text)}, {_moves(ranked[0])}", "good")


def _moves(item: CandidateRecord) -> str:
    return f"moves the picture {number(item.effect)} times as far as a harmless text (adjusted p {p_value(item.p_adjusted)})"


def _in(item: CandidateRecord) -> str:
    return "" if item.component == "not localised" else f", in the {visible(item.component)}"


def _removed(report: UnlearnReport) -> Iterator[Line]:
    good = TONES.get(report.exit.name, "warn")
    for name in dict.fromkeys([*report.before, *report.after]):
        before, after = report.before.get(name), report.after.get(name)
        yield Line(f"{called(name) if name in report.triggers else visible(name)}: {_effect(before, after)}", good)
    if not report.before and not report.after:
        yield from (Line(f"{called(text)}: its effect was not measured", "warn") for text in report.triggers)


def _effect(before: Estimate | None, after: Estimate | None) -> str:
    """Before and after, as multiples of what harmless texts reach where that is known."""
    ends = [(value, when) for value, when in ((before, "before"), (after, "after")) if value]
    if all(value.high > 0 and not is_interval(value) for value, _ in ends):
        times = ", ".join(f"{number(value.value / value.high)} times {when}" for value, when in ends)
        return f"effect {times}, where harmless texts reach 1"
    return f"effect {', '.join(f'{number(value.value)} {when}' for value, when in ends)}"


def _measured(report: VerifyReport) -> Iterator[Line]:
    quality = _quality(report)
    for attack in report.attacks:
        yield Line(f"{called(attack.trigger)}: {_drawn(attack)}{f'; {quality}' if quality else ''}", TONES.get(report.exit.name, "warn"))
    if not report.attacks:
        yield Line(f"no trigger was measured{f'; {quality}' if quality else ''}", TONES.get(report.exit.name, "warn"))


def _drawn(attack: AttackRecord) -> str:
    """What it draws before and now; without a model that had it, now and with the trigger left out."""
    if isinstance(attack.rate, NotMeasured):
        return "attack success was not measured"
    before = attack.evidence.rate if isinstance(attack.evidence, EvidenceRecord) else attack.evidence
    if isinstance(before, Estimate):
        return f"drawn in {share(before, ends=False)} of pictures before, {share(attack.rate)} after"
    floor = f", {share(attack.floor, ends=False)} without it" if isinstance(attack.floor, Estimate) else ""
    return f"drawn in {share(attack.rate)} of pictures{floor}"


def _quality(report: VerifyReport) -> str:
    """The CLIP ratio, where there is a model to compare with, else the CLIP score."""
    ratio, score = (_value(report.metrics.get(name)) for name in ("clip_ratio", "clip_score"))
    beside = "the model before" if report.compared_with == "before" else "the reference"
    return f"quality {100 * ratio.value:.1f} % of {beside}" if ratio else f"CLIP score {number(score.value)}" if score else ""


def _value(metric: Metric | None) -> Estimate | None:
    return metric.value if metric and isinstance(metric.value, Estimate) else None
