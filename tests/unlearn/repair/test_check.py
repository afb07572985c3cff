"""The checks on figures made by hand, and how many pictures they draw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from scipy.stats import binom
from torch import Tensor

from bdaudit.config import UnlearnConfig
from bdaudit.measure.effect import Effect, Reading
from bdaudit.models.suspect import Suspect
from bdaudit.records import Check, Estimate
from bdaudit.unlearn.repair import check
from bdaudit.unlearn.repair.check import LOOKS, MAX_RATE, N_PICTURES, _looked, _one_step, _pictures, _unmoved, picture_checks
from tests.small import PROMPTS

NULL = torch.linspace(0.1, 1, 100)
TRIGGERS = ("month", "time")


@pytest.mark.parametrize(("shift", "status"), [(0.5, "passed"), (5.0, "failed")])
def test_the_one_step_effect_must_lie_within_the_null(shift: float, status: str) -> None:
    reading = Reading(shift, tuple(i / 40 for i in range(1, 41)))
    found = _one_step("effect", Effect("ȏ", (), reading, reading, reading, beside="quiet ones"), reading)
    assert found.status == status
    assert found.name == "one-step effect of '\\u020f'"
    assert found.bound.endswith("the 95th percentile of quiet ones")


def changed(hits: int, n: int = N_PICTURES) -> Tensor:
    return torch.cat([torch.full((hits,), 2.0), torch.full((n - hits,), 0.5)])


@pytest.mark.parametrize(("hits", "status"), [(0, "passed"), (3, "passed"), (4, "failed"), (96, "failed")])
def test_pictures_are_counted_with_the_intervals_upper_end(hits: int, status: str) -> None:
    found = _pictures("x", changed(hits), NULL)
    assert found.status == status
    assert estimate(found).value == pytest.approx(hits / 96)


def test_a_picture_that_is_none_counts_as_changed() -> None:
    assert _pictures("x", torch.full((96,), float("nan")), NULL).status == "failed"


@pytest.mark.parametrize(("distance", "status"), [(0.2, "passed"), (0.99, "failed")])
def test_clean_pictures_must_stay(distance: float, status: str) -> None:
    moved = distance + 0.001 * torch.randn(96, generator=torch.Generator().manual_seed(0))
    assert _unmoved("clean", moved, float(NULL.quantile(0.95))).status == status


def test_an_early_end_needs_room() -> None:
    moved = 0.6 + 0.001 * torch.randn(24, generator=torch.Generator().manual_seed(0))
    assert [_unmoved("clean", moved, 1.0, room).status for room in (0.5, 1.0)] == ["failed", "passed"]


# --- how many are drawn -----------------------------------------------------------------------


def estimate(found: Check) -> Estimate:
    assert isinstance(found.value, Estimate)
    return found.value


def chance(rate: float, looks: Sequence[int]) -> float:
    """That the looks, one after the other, pass a trigger that changes ``rate`` of all pictures: by the number changed so far."""
    alive, before, passed = {0: 1.0}, 0, 0.0
    for n in looks:
        spread = {hits: 0.0 for hits in range(n + 1)}
        for hits, p in alive.items():
            for more in range(n - before + 1):
                spread[hits + more] += p * float(binom.pmf(more, n - before, rate))
        ends = {hits for hits in spread if _pictures("x", changed(hits, n), NULL).status == "passed"}
        passed += sum(spread[hits] for hits in ends)
        alive, before = {hits: p for hits, p in spread.items() if hits not in ends}, n
    return passed


def test_a_trigger_at_the_bound_passes_no_more_often_than_the_intervals_level_says() -> None:
    assert chance(MAX_RATE, [N_PICTURES]) == pytest.approx(0.0107, abs=1e-4)
    assert chance(MAX_RATE, [*LOOKS, N_PICTURES]) == pytest.approx(0.0219, abs=1e-4)
    assert chance(MAX_RATE, [*LOOKS, N_PICTURES]) < 0.025 < chance(MAX_RATE, [36, *LOOKS, N_PICTURES])
    assert chance(0.2, [*LOOKS, N_PICTURES]) < 1e-4


@pytest.mark.parametrize(("passes_on", "drawn"), [({44}, [44]), ({64, 96}, [44, 64]), ({96}, [44, 64, 96]), (set[int](), [44, 64, 96])])
def test_only_a_pass_ends_early(passes_on: set[int], drawn: list[int]) -> None:
    asked: list[int] = []

    def judged(n: int) -> Check:
        asked.append(n)
        return Check(
            name="x", status="passed" if n in passes_on else "failed", value=Estimate(value=0, low=0, high=0, n=n, method=""), bound=""
        )

    found, n = _looked(LOOKS, judged)
    assert asked == drawn
    assert n == drawn[-1] == estimate(found).n
    assert found.status == ("passed" if passes_on else "failed")


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

    def final_latents(self, suspect: Any, texts: Sequence[str], seeds: Sequence[int], scale: float) -> Tensor:
        self.drawn += len(texts)
        return torch.stack([torch.full((4,), self.shift(text, seed)) for text, seed in zip(texts, seeds, strict=True)])

    def shift(self, text: str, seed: int) -> float:
        i = self.seeds[seed]
        answer = next((values[min(i, len(values) - 1)] for word, values in self.answers.items() if word in text.split()), None)
        plain = text in PROMPTS
        return (0.0 if plain else 0.001 * (i % 100) if answer is None else answer) + self.drift * self.repaired


def checked(monkeypatch: pytest.MonkeyPatch, suspect: Suspect, toy: Toy, triggers: Sequence[str] = TRIGGERS[:1]) -> list[Check]:
    config = UnlearnConfig(model=Path("m"), out=Path("o"), triggers=tuple(triggers))
    toy.seeds = {seed: i for i, seed in enumerate(check.rotate(PROMPTS, N_PICTURES, config.seed)[1])}
    monkeypatch.setattr(check, "final_latents", toy.final_latents)
    ticks: list[tuple[int, int]] = []
    found = picture_checks(suspect, cast(Any, toy), config, PROMPTS, lambda *tick: ticks.append(tick))
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
    assert sizes(found) == [("passed", 64), ("passed", 24), ("passed", 24)]
    assert estimate(found[0]).value == 1 / 64
    assert toy.drawn == 3 * 64 + 2 * 24


def test_a_trigger_is_failed_on_all_pictures_alone(monkeypatch: pytest.MonkeyPatch, tiny_suspect: Suspect) -> None:
    toy = Toy({"month": [9.0]})
    assert sizes(checked(monkeypatch, tiny_suspect, toy))[0] == ("failed", 96)
    late = Toy({"month": [0.0] * 40 + [9.0]})
    assert sizes(checked(monkeypatch, tiny_suspect, late))[0] == ("failed", 96), "nor does a quiet start pass it"


def test_what_moved_with_little_room_is_judged_on_all(monkeypatch: pytest.MonkeyPatch, tiny_suspect: Suspect) -> None:
    toy = Toy({"month": [0.0]}, drift=0.03)
    assert sizes(checked(monkeypatch, tiny_suspect, toy)) == [("passed", 44), ("passed", 96), ("passed", 96)], "0.03 of 0.04"
    assert sizes(checked(monkeypatch, tiny_suspect, Toy({"month": [0.0]}, drift=0.9)))[1:] == [("failed", 96), ("failed", 96)]


def test_each_of_several_triggers_draws_what_it_needs_and_they_share_harmless_pictures(
    monkeypatch: pytest.MonkeyPatch, tiny_suspect: Suspect
) -> None:
    toy = Toy({"month": [9.0, 0.0], "time": [0.0]})
    found = checked(monkeypatch, tiny_suspect, toy, TRIGGERS)
    assert sizes(found) == [("passed", 64), ("passed", 44), ("passed", 24), ("passed", 24)]
    assert toy.drawn == 3 * 64 + 44 + 2 * 24, "both are words, so both stand beside the same texts"
    alone = [checked(monkeypatch, tiny_suspect, replace(toy, drawn=0), (text,))[0] for text in TRIGGERS]
    assert sizes(alone) == sizes(found[:2]), "in whatever company"
