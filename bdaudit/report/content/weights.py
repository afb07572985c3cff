"""What stands apart in the weights, in words: evidence for a person, beside the verdicts."""

from __future__ import annotations

from collections.abc import Iterator

from bdaudit.records import NotMeasured, ScanReport, WeightApart, Weights
from bdaudit.report.content.blocks import Block, Heading, Line
from bdaudit.report.content.headline import called
from bdaudit.report.safe import one_line, visible
from bdaudit.report.words import number


def weight_blocks(found: Weights | NotMeasured) -> Iterator[Block]:
    """A heading and a line a row or layer, or why there is none; nothing where the run did not come so far."""
    if found == ScanReport.weights:
        return
    yield Heading("The weights by themselves")
    if isinstance(found, NotMeasured):
        yield Line(f"not looked at: {one_line(found.reason)}", "warn")
        return
    counted = "; ".join(f"{visible(part)}: {number(count)}" for part, count in found.looked_at.items())
    beside = "with the reference's" if found.against_reference else "with each other; --reference tells more"
    if not found.apart:
        yield Line(f"none of the weights stands out ({counted}), compared {beside}")
    for each in found.apart:
        yield Line(f"{_named(each)}: {_said(each)}", "warn")
    if found.apart:
        yield Line(f"compared {beside}: {counted}. None of this decides a verdict; scan the text of such a row by name", "dim")
    yield from (Line(f"not looked at: {one_line(note)}", "dim") for note in found.not_looked_at)


def _named(each: WeightApart) -> str:
    return f"{visible(each.part)}, {visible(each.where)}" + (f" ({called(each.text)})" if each.text else "")


def _said(each: WeightApart) -> str:
    score = number(abs(each.score))
    alone = "and hardly another one changed" if each.score == 0 else f"{score} spreads farther than the others"
    other = f"that of {called(each.beside)}" if each.beside else "another one"
    return {
        "length": f"its length is {number(each.value)}, {score} spreads {'above' if each.score > 0 else 'below'} the others'",
        "neighbour": f"all but equal to {other} (cosine {each.value:.3f}), where no other two are so near",
        "size": f"its numbers are {score} spreads larger than in other layers of its kind",
        "change": f"{100 * each.value:.3g} % of its length away from the reference's, {alone}",
        "direction": f"its change from the reference is of one direction ({100 * each.value:.0f} % of it), as an edit in closed form is",
    }[each.measure]
