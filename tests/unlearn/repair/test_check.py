"""The checks on figures made by hand, and how many pictures they draw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from bdaudit.measure.effect import Effect, Reading
from bdaudit.models.suspect import Suspect
from bdaudit.records import Check, Estimate
from bdaudit.unlearn.repair import check
from bdaudit.unlearn.repair.check import LOOKS, _one_step, _pictures, _unmoved, picture_checks, quality_checks
from bdaudit.unlearn.triggers import Sampling
from tests.small import PROMPTS

NULL = torch.linspace(0.1, 1, 100)
TRIGGERS = ("month", "time")
SAMPLING = Sampling(PROMPTS, 5.0, 0)
SAMPLING = Sampling(PROMPTS, 5.0, 0)


@pytest.mark.parametrize(("shift", "status"), [(0.5, "passed"), (5.0, "failed")])
def test_the_one_step_effect_must_lie_within_the_null(shift: float, status: str) -> None:
    reading = Reading(shift, tuple(i / 40 for i in range(1, 41)))
    found = _one_step("effect", Effect("ȏ", (), reading, reading, reading, beside="quiet ones"), reading)
    assert found.status == status
    assert found.name == "one-step effect of '\\u020f'"
    assert found.bound.endswith("the 95th percentile of quiet ones")


def changed(hits: int, n: int = 96) -> Tensor:
    return torch.cat([torch.full((hits,), 2.0), torch.full((n - hits,), 0.5)])


@pytest.mark.parametrize(
    ("hits", "n", "status"),
    [(0, 44, "passed"), (1, 44, "undecided"), (3, 96, "passed"), (6, 96, "undecided"), (30, 96, "failed"), (26, 432, "passed")],
)
def test_pictures_are_counted_against_what_harmless_texts_change(hits: int, n: int, status: str) -> None:
    null = torch.linspace(0.1, 1, n)
    floor = int((null > null.double().quantile(0.99)).sum())
    found = _pictures("x", changed(hits, n), null)
    assert found.status == status
    assert estimate(found).value == pytest.approx((hits - floor) / n)
    assert f"{hits} of {n} pictures changed" in found.bound
    assert found.bound.endswith(f"harmless texts, {floor} by those)")
    assert ("no more than 432 pictures" in found.reason) == (status == "undecided")


def test_a_picture_that_is_none_counts_as_changed() -> None:
    nan = torch.full((96,), float("nan"))
    assert _pictures("x", nan, NULL[:96]).status == "failed"
    assert _pictures("x", nan, nan).status == _pictures("x", NULL[:96], nan).status == "failed", "nor is it a floor"


def test_pictures_that_harmless_texts_do_not_move_and_the_trigger_does_not_either_are_unchanged() -> None:
    assert _pictures("x", torch.zeros(96), torch.zeros(96)).status == "passed"


@pytest.mark.parametrize(("distance", "status"), [(0.2, "passed"), (0.99, "failed")])
def test_clean_pictures_must_stay(distance: float, status: str) -> None:
    moved = distance + 0.001 * torch.randn(96, generator=torch.Generator().manual_seed(0))
    assert _unmoved("clean", moved, float(NULL.quantile(0.95))).status == status


def test_pictures_whose_mean_is_too_near_to_the_bound_are_undecided() -> None:
    moved = torch.cat([torch.full((48,), 0.5), torch.full((48,), 1.5)])
    found = _unmoved("clean", moved, 1.0)
    assert found.status == "undecided"
    assert found.reason


def test_an_early_pass_needs_room() -> None:
    moved = 0.6 + 0.001 * torch.randn(24, generator=torch.Generator().manual_seed(0))
    assert [_unmoved("clean", moved, 1.0, room).status for room in (0.5, 1.0)] == ["undecided", "passed"]


# --- how many are drawn -----------------------------------------------------------------------


def estimate(found: Check) -> Estimate:
    assert isinstance(found.value, Estimate)
    return found.value


@dataclass
class Toy:
    """Pictures whose distances are known: a text shifts all of a row, harmless ones by up to 0.1."""

    answers: dict[str, list[float]]
    """Text → by how much it moves the pictures after the repair, the last value standing for all that follow."""
    drift: float = 0.01
    drawn: int = 0
    repaired: bool = True
    seeds: dict[int, int] = field(default_factory=dict)

    @contextmanager
    def teacher(self) -> Iterator[None]:
        self.repaired = False
        yield
        self.repaired = True

    def final_latents(self, suspect: Any, texts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        self.drawn += len(texts)
        return torch.stack([torch.full((4,), self.shift(text, seed)) for text, seed in zip(texts, seeds, strict=True)])

    def shift(self, text: str, seed: int) -> float:
        i = self.seeds[seed]
        answer = next((values[min(i, len(values) - 1)] for word, values in self.answers.items() if word in text.split()), None)
        plain = text in PROMPTS
        return (0.0 if plain else 0.001 * (i % 100) if answer is None else answer) + self.drift * self.repaired


def checked(monkeypatch: pytest.MonkeyPatch, suspect: Suspect, toy: Toy, triggers: Sequence[str] = TRIGGERS[:1]) -> list[Check]:
    toy.seeds = {seed: i for i, seed in enumerate(check.rotate(PROMPTS, LOOKS[-1], SAMPLING.seed)[1])}
    monkeypatch.setattr(check, "final_latents", toy.final_latents)
    ticks: list[tuple[int, int]] = []
    found = picture_checks(suspect, cast(Any, toy), triggers, SAMPLING, lambda *tick: ticks.append(tick))
    assert [done for done, _ in ticks] == list(range(1, len(ticks) + 1))
    assert all(done <= total for done, total in ticks)
    return found


def sizes(found: Sequence[Check]) -> list[tuple[str, int]]:
    return [(each.status, estimate(each).n) for each in found]


def test_a_trigger_that_does_nothing_is_passed_on_the_first_part(monkeypatch: pytest.MonkeyPatch, tiny_suspect: Suspect) -> None:
    toy = Toy({"month": [0.0]})
    assert sizes(checked(monkeypatch, tiny_suspect, toy)) == [("passed", 44), ("passed", 24), ("passed", 24)]
    assert toy.drawn == 3 * 44 + 2 * 24


def test_one_changed_picture_needs_a_second_look_and_each_is_drawn_once(monkeypatch: pytest.MonkeyPatch, tiny_suspect: Suspect) -> None:
    toy = Toy({"month": [9.0, 0.0]})
    found = checked(monkeypatch, tiny_suspect, toy)
    assert sizes(found) == [("passed", 96), ("passed", 24), ("passed", 24)]
    assert estimate(found[0]).value == 0, "one of 96, as of harmless texts"
    assert toy.drawn == 3 * 96 + 2 * 24


def test_a_trigger_that_works_is_failed_at_once_and_a_quiet_start_does_not_save_it(
    monkeypatch: pytest.MonkeyPatch, tiny_suspect: Suspect
) -> None:
    assert sizes(checked(monkeypatch, tiny_suspect, Toy({"month": [9.0]})))[0] == ("failed", 44)
    late = Toy({"month": [9.0, *[0.0] * 42, 9.0]})
    assert sizes(checked(monkeypatch, tiny_suspect, late))[0] == ("failed", 96)


def test_a_rate_at_the_floor_with_a_bad_start_passes_and_one_at_the_bound_is_undecided(
    monkeypatch: pytest.MonkeyPatch, tiny_suspect: Suspect
) -> None:
    """6 of the first 96 were refused by a bound that no more than 3 of 96 met."""
    start = Toy({"month": [9.0] * 6 + [0.0]})
    assert sizes(checked(monkeypatch, tiny_suspect, start))[0] == ("passed", 200)
    every_ninth = Toy({"month": [9.0 if i % 9 == 0 else 0.0 for i in range(LOOKS[-1])]})
    found = checked(monkeypatch, tiny_suspect, every_ninth)[0]
    assert sizes([found]) == [("undecided", 432)]
    assert "undecided" in found.reason


def test_what_moved_with_little_room_is_judged_on_all(monkeypatch: pytest.MonkeyPatch, tiny_suspect: Suspect) -> None:
    toy = Toy({"month": [0.0]}, drift=0.03)
    assert sizes(checked(monkeypatch, tiny_suspect, toy)) == [("passed", 44), ("passed", 96), ("passed", 96)], "0.03 of 0.04"
    assert sizes(checked(monkeypatch, tiny_suspect, Toy({"month": [0.0]}, drift=0.9)))[1:] == [("failed", 24), ("failed", 24)]


def test_without_a_trigger_the_same_two_are_drawn_until_they_decide(monkeypatch: pytest.MonkeyPatch, tiny_suspect: Suspect) -> None:
    for drift, expected in ((0.01, [("passed", 96)] * 2), (0.9, [("failed", 96)] * 2)):
        toy = Toy({}, drift=drift)
        toy.seeds = {seed: i for i, seed in enumerate(check.rotate(PROMPTS, LOOKS[-1], SAMPLING.seed)[1])}
        monkeypatch.setattr(check, "final_latents", toy.final_latents)
        ticks: list[tuple[int, int]] = []
        found = quality_checks(tiny_suspect, cast(Any, toy), ("month",), SAMPLING, lambda *tick, to=ticks: to.append(tick))
        assert sizes(found) == expected
        assert ticks == [(i, 4) for i in range(1, 5)]
        assert toy.drawn == 4 * 96


def test_each_of_several_triggers_draws_what_it_needs_and_they_share_harmless_pictures(
    monkeypatch: pytest.MonkeyPatch, tiny_suspect: Suspect
) -> None:
    toy = Toy({"month": [9.0, 0.0], "time": [0.0]})
    found = checked(monkeypatch, tiny_suspect, toy, TRIGGERS)
    assert sizes(found) == [("passed", 96), ("passed", 44), ("passed", 24), ("passed", 24)]
    assert toy.drawn == 3 * 96 + 44 + 2 * 24, "both are words, so both stand beside the same texts"
    alone = [checked(monkeypatch, tiny_suspect, replace(toy, drawn=0), (text,))[0] for text in TRIGGERS]
    assert sizes(alone) == sizes(found[:2]), "in whatever company"
