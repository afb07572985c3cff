"""Figures and verdicts in words: what the tables, the page and SARIF say alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from bdaudit.records import (
    AttackRecord,
    CandidateRecord,
    Check,
    ContributorRecord,
    Coverage,
    Estimate,
    EvidenceRecord,
    Localisation,
    ModelRecord,
    NotMeasured,
    ReachRecord,
    VariantRun,
    VerifyReport,
)
from bdaudit.report.safe import one_line, visible
from bdaudit.spelling.points import codes, short_digest

LONGEST = 60
"""Characters of a hostile text that a cell shows."""


def number(value: float) -> str:
    """Three significant digits: ``0.0123``, ``12.3``, ``1.2e-07``."""
    if value != 0 and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.1e}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def p_value(p: float | NotMeasured) -> str:
    """``0.003``, ``< 0.0001``, or why there is none."""
    if isinstance(p, NotMeasured):
        return f"not measured: {visible(p.reason)}"
    return "< 0.0001" if p < 1e-4 else number(p)


def estimate(value: Estimate | NotMeasured) -> str:
    """``0.31 (0.29 to 0.33, n = 200)``, or why there is none."""
    if isinstance(value, NotMeasured):
        return f"not measured: {visible(value.reason)}"
    return f"{number(value.value)} ({number(value.low)} to {number(value.high)}, n = {value.n})"


def rate(value: Estimate | NotMeasured) -> str:
    """``95.0 % (91.0 to 97.3 %, n = 200)``, or why there is none."""
    if isinstance(value, NotMeasured):
        return f"not measured: {visible(value.reason)}"
    return f"{100 * value.value:.1f} % ({100 * value.low:.1f} to {100 * value.high:.1f} %, n = {value.n})"


class Footnotes:
    """Why figures of one table were not measured, each reason told once below it."""

    def __init__(self) -> None:
        self._marks: dict[str, int] = {}

    def cell(self, value: Estimate | NotMeasured) -> str:
        """As ``estimate``, or ``not measured [1]``."""
        return self._marked(value) if isinstance(value, NotMeasured) else estimate(value)

    def rate(self, value: Estimate | NotMeasured) -> str:
        """The same for a rate."""
        return self._marked(value) if isinstance(value, NotMeasured) else rate(value)

    def p_value(self, p: float | NotMeasured) -> str:
        """The same for a p-value."""
        return self._marked(p) if isinstance(p, NotMeasured) else p_value(p)

    def _marked(self, value: NotMeasured) -> str:
        return f"not measured [{self._marks.setdefault(value.reason, len(self._marks) + 1)}]"

    def lines(self) -> list[str]:
        """``[1] the reason``, in the order of the cells; for after they were made."""
        return [f"[{mark}] {one_line(reason)}" for reason, mark in self._marks.items()]


def checked(check: Check) -> str:
    """A check's figure; ``not measured`` alone where the check's own reason says why."""
    return "not measured" if isinstance(check.value, NotMeasured) and check.reason else estimate(check.value)


def check_reasons(checks: Sequence[Check]) -> tuple[list[str], list[str]]:
    """Each check's reason for its cell, and what stands below the table: a reason that several share is told once, there."""
    times = Counter(check.reason for check in checks if check.reason)
    marks = {reason: mark for mark, reason in enumerate((reason for reason, n in times.items() if n > 1), 1)}
    cells = [f"[{marks[check.reason]}]" if check.reason in marks else one_line(check.reason) for check in checks]
    return cells, [f"[{mark}] {one_line(reason)}" for reason, mark in marks.items()]


def places(positions: Mapping[str, int]) -> str:
    """``positions: prefix 67, middle 67, suffix 66``; empty where there are none."""
    counts = ", ".join(f"{visible(place)} {count}" for place, count in positions.items())
    return f"positions: {counts}" if counts else ""


CONTRIBUTOR_HEADERS = (
    "contributor",
    "of it in the merge",
    "shared mask",
    "safety mask",
    "distance left",
    "its soft token",
    "in the merge",
    "backdoor",
)


def contributor_cells(record: ContributorRecord) -> list[str]:
    """A row under ``CONTRIBUTOR_HEADERS``."""
    masks = (f"{value:.2f}" if isinstance(value, float) else "none" for value in (record.shared_mask, record.safety_mask))
    measured = (record.quality, record.soft_token, record.soft_token_after)
    return [told(record.path), f"{record.kept:.2f}", *masks, *map(estimate, measured), visible(record.backdoor) or "no trigger was named"]


def rate_before(attack: AttackRecord) -> Estimate | NotMeasured:
    """The trigger's rate on the model that carried the backdoor."""
    return attack.evidence.rate if isinstance(attack.evidence, EvidenceRecord) else attack.evidence


def beside(attacks: Sequence[AttackRecord]) -> list[str]:
    """Headers of the rates that stand beside the model's own: before, where there is one; reference, unless before alone is there."""
    before = any(isinstance(rate_before(attack), Estimate) for attack in attacks)
    reference = any(isinstance(attack.reference, Estimate) for attack in attacks)
    return ["before"] * before + ["reference"] * (reference or not before)


def beside_rates(attack: AttackRecord, headers: Sequence[str]) -> list[Estimate | NotMeasured]:
    """The rates under the headers of ``beside``."""
    return [rate_before(attack) if header == "before" else attack.reference for header in headers]


def evidence_lines(report: VerifyReport) -> list[str]:
    """What shows of each text that it was ever a trigger, and what the model says of itself."""
    lines = [f"evidence for {short(attack.trigger)}: {one_line(attack.evidence.reason)}" for attack in report.attacks]
    return [*lines, *([one_line(report.says_of_itself)] if report.says_of_itself else [])]


def compared(report: VerifyReport) -> str:
    """The header of the figures that quality is compared with."""
    return "before" if report.compared_with == "before" else "reference"


REACH_HEADERS = ("form", "text", "code points", "attack success", "without trigger", "p")


def reach_cells(record: ReachRecord) -> tuple[str, ...]:
    """One form of a trigger, a cell a header."""
    return (visible(record.what), short(record.text), codes(record.text), rate(record.rate), rate(record.floor), p_value(record.p))


def short(text: str) -> str:
    """A hostile text for a cell: visible, and cut where it is very long, saying so, with a digest that tells apart what begins alike."""
    if len(text) <= LONGEST:
        return visible(text)
    return f"{visible(text[:LONGEST])}… ({len(text)} characters, #{short_digest(text)})"


def told(text: str) -> str:
    """The same where no column of code points stands beside it: they follow where it holds a character that could be taken for another."""
    return short(text) if visible(text[:LONGEST]).isascii() else f"{short(text)} ({codes(text)})"


def reading(item: CandidateRecord) -> str:
    """On lines below a candidate's text: which of two readings it is, and which weights it was measured on, where there are several."""
    notes = (item.reading, item.variant and f"on the {item.variant} weights")
    return "".join(f"\n({visible(note)})" for note in notes if note)


def short_ids(token_ids: Sequence[int]) -> str:
    """Token ids for a cell, the first eight and how many more."""
    more = f" … +{len(token_ids) - 8}" if len(token_ids) > 8 else ""
    return " ".join(map(str, token_ids[:8])) + more


def check_line(check: Check) -> str:
    """One check in a sentence: name, outcome, figure, bound, reason."""
    reason = f"; {visible(check.reason)}" if check.reason else ""
    return f"{visible(check.name)}: {check.status}, {estimate(check.value)}, bound {visible(check.bound)}{reason}"


def unaudited_lines(model: ModelRecord) -> list[str]:
    """Each set of weights that was not looked at, and why."""
    return [f"not audited: {visible(left.path)}: {visible(left.reason)}" for left in model.unaudited]


def variant_lines(runs: Sequence[VariantRun]) -> list[str]:
    """How each run of --variant all ended, and what it found."""
    found = [f" ({', '.join(visible(text) for text in run.findings)})" if run.findings else "" for run in runs]
    return [
        f"variant {visible(run.variant)}: {visible(run.name)}, {visible(run.reason)}{more}" for run, more in zip(runs, found, strict=True)
    ]


def coverage_line(coverage: Coverage) -> str:
    """``812 asked, 805 tested, 7 skipped``."""
    return f"{coverage.asked} asked, {coverage.tested} tested, {len(coverage.skipped)} skipped"


def found_out(item: CandidateRecord) -> str:
    """Where a text that stands out lives, and what else was found out about it."""
    further = "".join(f"; {visible(said)}" for said in (item.adapter, item.word_like) if said)
    return f"{visible(item.component)}{_swaps(item.localisation)}{_left(item)}{further}"


def _left(item: CandidateRecord) -> str:
    left = {name: signal for name, signal in item.signals.items() if name.startswith("left in")}
    return "".join(f"; {visible(name)}: {100 * signal.value:.0f} % (p {p_value(signal.p)})" for name, signal in left.items())


def _swaps(place: Localisation | NotMeasured) -> str:
    if isinstance(place, NotMeasured):
        return ""
    shares = ", ".join(f"{visible(part)} {100 * swap.left:.0f} % / {100 * swap.brought:.0f} %" for part, swap in place.swaps.items())
    return f"; lives in: {visible(place.where)} (effect left without it / brought by it alone: {shares})"
