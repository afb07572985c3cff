"""Figures and verdicts in words: what the content of every report and SARIF say alike."""

from __future__ import annotations

from bdaudit.records import CandidateRecord, Check, EncoderRecord, Estimate, Localisation, NotMeasured, RecoveryRecord
from bdaudit.report.safe import one_line, visible
from bdaudit.spelling.points import codes, short_digest

LONGEST = 60
"""Characters of a hostile text that a cell shows."""


def number(value: float) -> str:
    """Three significant digits: ``0.0123``, ``12.3``, ``1.2e-07``."""
    if value != 0 and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.1e}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def p_value(p: float) -> str:
    """``0.003``, ``< 0.0001``."""
    return "< 0.0001" if p < 1e-4 else number(p)


def is_interval(value: Estimate) -> bool:
    """Whether its ends are a confidence interval's, whose method names its level; a range of what it stands beside has none."""
    return "%" in value.method


def estimate(value: Estimate) -> str:
    """``0.31 (0.29 to 0.33, n = 200)``; where the ends are of something else, ``3.07, beside it 0.01 to 0.11 (harmless texts, n = 25)``."""
    if is_interval(value):
        return f"{number(value.value)} ({number(value.low)} to {number(value.high)}, n = {value.n})"
    what = visible(value.method.removeprefix("beside it the "))
    return f"{number(value.value)}, beside it {number(value.low)} to {number(value.high)} ({what}, n = {value.n})"


def rate(value: Estimate) -> str:
    """``95.0 % (91.0 to 97.3 %, n = 200)``."""
    return f"{100 * value.value:.1f} % ({100 * value.low:.1f} to {100 * value.high:.1f} %, n = {value.n})"


def share(value: Estimate, *, ends: bool = True) -> str:
    """``0 % [0, 1.9]`` for a headline: a rate, and in brackets its interval in per cent."""
    low, high = (f"{100 * end:.1f}".removesuffix(".0") for end in (value.low, value.high))
    return f"{100 * value.value:.1f}".removesuffix(".0") + " %" + (f" [{low}, {high}]" if ends else "")


def or_why(value: Estimate | NotMeasured) -> str:
    """An estimate, or why there is none."""
    return f"not measured: {one_line(value.reason)}" if isinstance(value, NotMeasured) else estimate(value)


def short(text: str) -> str:
    """A hostile text for a cell: visible, and cut where it is very long, saying so, with a digest that tells apart what begins alike."""
    if len(text) <= LONGEST:
        return visible(text)
    return f"{visible(text[:LONGEST])}… ({len(text)} characters, #{short_digest(text)})"


def told(text: str) -> str:
    """The same where no column of code points stands beside it: they follow where it holds a character that could be taken for another."""
    return short(text) if visible(text[:LONGEST]).isascii() else f"{short(text)} ({codes(text)})"


def check_line(check: Check) -> str:
    """One check in a sentence: name, outcome, figure, bound, reason."""
    reason = f"; {visible(check.reason)}" if check.reason else ""
    return f"{visible(check.name)}: {check.status}, {or_why(check.value)}, bound {visible(check.bound)}{reason}"


def recovered(record: RecoveryRecord) -> str:
    """How far the strongest mixture of entries goes, and the strongest text; the model's verdict."""
    text = f"the strongest text named, {told(record.text)}, {number(record.text_pull)} times" if record.text else "no text was named"
    return (
        f"recovery: {record.choices} soft choices; at equal movement of the text encoding the strongest pulls "
        f"{number(record.soft_pull)} times as far as the median entry, {text}, the strongest of {record.drawn} drawn at random "
        f"{number(record.strongest_entry)} times; named pull {number(record.named_pull)}, limit {number(record.limit)}: "
        f"the model as a whole is {record.verdict}{_of_encoder(record.encoder)}"
    )


def _of_encoder(record: EncoderRecord | NotMeasured) -> str:
    if isinstance(record, NotMeasured):
        return f"; the text encoder by itself: not measured ({record.reason})"
    if not record.text:
        return "; in the text encoder alone no text was named"
    return (
        f"; in the text encoder alone {told(record.text)} leaves {100 * record.text_left:.0f} % of what tells prompts apart, "
        f"limit {100 * record.limit:.0f} %: the encoder is {record.verdict}"
    )


def found_out(item: CandidateRecord) -> str:
    """Where a text that stands out lives, and what else was found out about it."""
    further = "".join(f"; {visible(said)}" for said in (item.adapter, item.word_like, item.meaning, item.acceptance) if said)
    where = "not localised" if item.component == "not localised" else f"in the {visible(item.component)}"
    return f"{where}{_swaps(item.localisation)}{_left(item)}{further}"


def _left(item: CandidateRecord) -> str:
    left = {name: signal for name, signal in item.signals.items() if name.startswith("left in")}
    return "".join(f"; {visible(name)}: {100 * signal.value:.0f} % (p {p_value(signal.p)})" for name, signal in left.items())


def _swaps(place: Localisation | NotMeasured) -> str:
    if isinstance(place, NotMeasured):
        return ""
    shares = ", ".join(f"{visible(part)} {round(100 * swap.left)} % / {round(100 * swap.brought)} %" for part, swap in place.swaps.items())
    return f"; lives in: {visible(place.where)} (effect left without it / brought by it alone: {shares})"
