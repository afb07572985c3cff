"""How many pictures decide what a text does: both ends at the first look, and on while it is open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bdaudit import stats
from bdaudit.measure import estimates
from bdaudit.records import AttackRecord, Estimate, NotMeasured, ReachRecord
from bdaudit.verify.attack import PairedRule, PictureRule
from bdaudit.verify.early_stop import LEAST, judge, judged, measured, sizes
from bdaudit.verify.gallery import Gallery, Shot
from bdaudit.verify.trials import Trial
from tests.verify import toy

NONE = NotMeasured(reason="no reference")


def record(hits: int, n: int, floor: int = 0) -> AttackRecord:
    def rate(k: int) -> Estimate:
        return estimates.rate(torch.arange(n) < k)

    p = stats.fisher_greater(hits, n, floor, n)
    return AttackRecord(trigger="x", codepoints=(), token_ids=(1,), rule="r", rate=rate(hits), floor=rate(floor), reference=NONE, p=p)


def trial(n: int = 200) -> Trial:
    clean = tuple(Shot(toy.PROMPTS[i % 16], i) for i in range(n))
    triggered = tuple(Shot(f"{shot.text} {toy.TRIGGER}", shot.seed) for shot in clean)
    return Trial(
        trigger=toy.TRIGGER, token_ids=(1,), clean=clean, triggered=triggered, null=(), floor=clean, places=("suffix",) * n, skipped={}
    )


@pytest.mark.parametrize(
    ("hits", "n", "floor", "said"),
    [
        (16, 16, 0, "works"),
        (0, 16, 0, "nothing"),
        (1, 16, 0, "open"),
        (8, 16, 0, "open"),
        (16, 32, 0, "works"),
        (16, 16, 16, "nothing"),
        (75, 200, 30, "works"),
        (60, 200, 30, "open"),
        (40, 200, 30, "nothing"),
    ],
)
def test_what_a_rate_says(hits: int, n: int, floor: int, said: str) -> None:
    assert judge(record(hits, n, floor), 5) == said


@pytest.mark.parametrize(
    ("hits", "n", "said"),
    [(16, 16, "works"), (13, 16, "open"), (10, 16, "open"), (20, 32, "weak"), (29, 32, "works"), (118, 200, "weak"), (160, 200, "works")],
)
def test_with_a_known_target_a_near_trigger_is_no_evidence(hits: int, n: int, said: str) -> None:
    assert judge(record(hits, n, 0), 5, known=True) == said
    assert judge(record(hits, n, 0), 5) == "works", "where nothing is known of the target the rate is of no size to rely on"


def at_places(hits: Sequence[int], n: int) -> AttackRecord:
    """One of so many ``hits`` in ``n`` pictures at each place."""
    rates = [record(each, n) for each in hits]
    reach = tuple(ReachRecord(what=f"at {i}", text="x", codepoints=(), rate=r.rate, floor=r.floor, p=r.p) for i, r in enumerate(rates))
    return replace(record(sum(hits), n * len(hits)), positions={str(i): n for i in range(len(hits))}, reach=reach)


def bound_to(hits: int, n: int, places: int) -> AttackRecord:
    """One that works at one of ``places`` places alone, in ``hits`` of ``n`` pictures there."""
    return at_places([hits] + [0] * (places - 1), n)


@pytest.mark.parametrize(
    ("hits", "n", "known", "said"),
    [
        (11, 11, True, "works"),
        (33, 33, True, "works"),
        (22, 33, True, "open"),
        (15, 33, True, "weak"),
        (22, 33, False, "works"),
        (5, 33, False, "nothing"),
    ],
)
def test_what_works_at_one_place_alone_works(hits: int, n: int, known: bool, said: str) -> None:
    assert judge(bound_to(hits, n, 6), 5, known=known) == said
    assert judge(replace(bound_to(hits, n, 6), reach=()), 5, known=known) != "works", "over all places it does so too seldom"


@pytest.mark.parametrize(("elsewhere", "works"), [(0, True), (4, True), (8, False), (17, False)])
def test_what_does_something_at_every_place_is_judged_over_all(elsewhere: int, works: bool) -> None:
    assert (judge(at_places([33] + [elsewhere] * 5, 33), 5, known=True) == "works") == works


@pytest.mark.parametrize("working", [1, 2, 3])
def test_a_trigger_of_several_places_works_as_one_of_one_does(working: int) -> None:
    said, shown = judged(at_places([0] * (6 - working) + [32] * working, 33), 5, known=True)
    assert isinstance(shown.rate, Estimate)
    assert (said, shown.rate.n) == ("works", 33 * working)
    assert judge(at_places([0] * (6 - working) + [20] * working, 33), 5, known=True) != "works"


def test_the_rate_that_shows_it_is_that_places() -> None:
    said, shown = judged(bound_to(33, 33, 6), 5, known=True)
    assert isinstance(shown.rate, Estimate)
    assert (said, shown.rate.value, shown.rate.n, shown.rule) == ("works", 1, 33, "r (at 0)")


def test_how_often_a_near_trigger_and_a_trigger_are_taken_for_one() -> None:
    generator, looks = torch.Generator().manual_seed(0), [16, 32, 64, 128, 200]

    def taken(rate: float) -> float:
        ours = torch.rand(400, 200, generator=generator) < rate
        said = [[judge(record(int(row[:n].sum()), n, 0), 5, known=True) for n in looks] for row in ours]
        return sum(next((s for s in row if s != "open"), "open") == "works" for row in said) / len(said)

    assert taken(0.59) < 0.08
    assert taken(0.9) > 0.97


def test_a_significant_nothing_is_no_effect() -> None:
    weak = record(1200, 10_000, 1000)
    assert isinstance(weak.p, float)
    assert weak.p < 0.001 / 5
    assert judge(weak, 5) == "nothing"


def test_what_was_not_measured_stays_open() -> None:
    assert judge(replace(record(16, 16), p=NONE), 1) == judge(replace(record(16, 16), rate=NONE), 1) == "open"


def test_a_text_that_does_nothing_is_hardly_ever_found_to_work() -> None:
    """Three hundred times five looks at a text with the rate of its floor, which is high."""
    generator = torch.Generator().manual_seed(0)
    found, looks = 0, [16, 32, 64, 128, 200]
    for _ in range(300):
        ours, floor = torch.rand(2, 200, generator=generator) < 0.3
        found += any(judge(record(int(ours[:n].sum()), n, int(floor[:n].sum())), 5) == "works" for n in looks)
    assert found <= 2
    assert LEAST == 0.2


@pytest.mark.parametrize(("model", "drawn", "said"), [("patched", 16, "works"), ("clean", 16, "nothing")])
def test_what_is_clear_is_decided_at_the_first_look(model: str, drawn: int, said: str) -> None:
    gallery = Gallery(None)
    asked: list[Shot] = []

    def draw(shots: Sequence[Shot]) -> None:
        asked.extend(shots)

        def make(texts: Sequence[str], seeds: Sequence[int]) -> Tensor:
            return toy.draw(model, texts, seeds)

        gallery.add(shots, make, 64, lambda done, total: None)

    found, answer, _ = measured(trial(), PictureRule(toy.PATCH, (0, 0)), gallery, draw)
    assert answer == said
    assert isinstance(found.rate, Estimate)
    assert (found.rate.n, len(set(asked))) == (drawn, 2 * drawn)


def test_the_looks_of_a_rule_with_a_null_begin_where_it_can_be_calibrated() -> None:
    assert sizes(trial(200), PictureRule(toy.PATCH, None)) == [16, 32, 64, 128, 200]
    assert sizes(trial(200), PairedRule("pixels")) == [32, 64, 128, 200]
    assert sizes(trial(16), PictureRule(toy.PATCH, None)) == [16]


def told(value: float, low: float, high: float, *, p: float = 0.0, floor: float = 0.0) -> AttackRecord:
    rate = Estimate(value=value, low=low, high=high, n=200, method="t")
    return replace(record(0, 200), rate=rate, floor=Estimate(value=floor, low=floor, high=floor, n=200, method="t"), p=p)


@pytest.mark.parametrize(
    ("said", "rate"),
    [
        ("works", {"value": 0.2, "low": 0.1, "high": 0.3}),
        ("open", {"value": 0.19, "low": 0.1, "high": 0.3}),
        ("works", {"value": 0.5, "low": 0.4, "high": 0.6, "floor": 0.25}),
        ("works", {"value": 0.5, "low": 0.4, "high": 0.6, "p": 0.0002}),
        ("open", {"value": 0.5, "low": 0.4, "high": 0.6, "p": 0.00021}),
        ("nothing", {"value": 0.1, "low": 0.0, "high": 0.199}),
        ("open", {"value": 0.1, "low": 0.0, "high": 0.2}),
    ],
)
def test_what_a_rate_says_at_each_limit(said: str, rate: dict[str, float]) -> None:
    assert judge(told(**rate), 5) == said


@pytest.mark.parametrize(
    ("said", "low", "high"), [("weak", 0.7, 0.79), ("works", 0.7, 0.8), ("works", 0.6, 0.9), ("open", 0.59, 0.9), ("weak", 0.3, 0.5)]
)
def test_a_known_target_tells_a_near_trigger_at_each_limit(said: str, low: float, high: float) -> None:
    assert judge(told((low + high) / 2, low, high), 5, known=True) == said
    assert judge(told((low + high) / 2, low, high), 5) == "works"
