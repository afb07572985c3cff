"""Multiplicity: adjusted over everything that was swept, whatever was chosen to be measured."""

from __future__ import annotations

import numpy as np
import pytest

from bdaudit.many_tests import holm
from bdaudit.records import SweepRecord
from bdaudit.scan.multiplicity import CandidateGroup, adjusted, beyond, expected


def test_what_was_screened_out_counts_as_one() -> None:
    p = {"a": 1e-5, "b": 3e-4, "c": 2e-4}
    whole = holm([*p.values(), *np.ones(97)])
    found = adjusted(p, [CandidateGroup("vocabulary", ("a", "b", "c"), 100)], {})
    assert list(found.values()) == pytest.approx(list(whole[:3]))


def test_groups_share_the_error_and_the_first_one_judges() -> None:
    p = {"a": 1e-4, "b": 1e-4}
    found = adjusted(p, [CandidateGroup("list", ("a",), 1), CandidateGroup("vocabulary", ("b", "a"), 50)], {})
    assert found == pytest.approx({"a": 2e-4, "b": 1e-2})


def test_one_list_is_holm() -> None:
    p = {str(i): x for i, x in enumerate(np.random.default_rng(0).uniform(size=20))}
    found = adjusted(p, [CandidateGroup("list", tuple(p), 20)], {})
    assert list(found.values()) == pytest.approx(list(holm(list(p.values()))))


@pytest.mark.parametrize("groups", [[CandidateGroup("list", ("a", "b"), 1)], [CandidateGroup("list", ("a",), 5)]])
def test_a_group_too_small_or_missing_is_an_error(groups: list[CandidateGroup]) -> None:
    with pytest.raises(ValueError, match="group"):
        adjusted({"a": 0.5, "b": 0.5}, groups, {})


def test_the_worst_of_all_screens_raises_no_more_false_alarms_than_alpha() -> None:
    """The screen that picks the very smallest p of a clean model, over and over."""
    rng, alpha, runs = np.random.default_rng(1), 0.05, 2000
    alarms = 0
    for _ in range(runs):
        picked = np.sort(rng.uniform(size=400))[:8]
        texts = tuple(map(str, range(8)))
        alarms += min(adjusted(dict(zip(texts, picked, strict=True)), [CandidateGroup("v", texts, 400)], {}).values()) <= alpha
    assert alarms / runs < alpha + 3 * np.sqrt(alpha * (1 - alpha) / runs)


SWEEP = SweepRecord(name="v", swept=400, adjusted_for=400, survivors=48, forward_passes=1, rounds=(), unreachable=())


@pytest.mark.parametrize("mean", [0.2, 0.5, 0.8])
@pytest.mark.parametrize(("swept", "survivors"), [(48, 48), (2000, 48), (2000, 16)])
def test_survivors_are_told_from_each_other_whatever_the_controls_tail_was(mean: float, swept: int, survivors: int) -> None:
    """Whether they are the loudest of all that were swept, or any of them."""
    rng, alpha, runs = np.random.default_rng(2), 0.05, 1000
    tops = (np.sort(rng.exponential(mean, size=swept))[-survivors:] for _ in range(runs))
    alarms = sum(expected(top[-1], top) <= alpha for top in tops)
    assert alarms / runs < alpha + 3 * np.sqrt(alpha * (1 - alpha) / runs)


@pytest.mark.parametrize(("triggers", "beside", "found"), [(8, 40, True), (9, 40, False), (4, 12, True), (5, 11, False)])
def test_eight_triggers_among_the_survivors_hide_nothing_and_nine_do(triggers: int, beside: int, found: bool) -> None:
    """Of sixteen, four and five."""
    harmless = np.sort(np.random.default_rng(3).exponential(0.5, size=2000))[-beside:]
    survivors = [*np.full(triggers, 20.0), *harmless]
    assert (expected(20.0, survivors) < 2e-3) == found
    assert expected(float(harmless[-1]), survivors) > 0.05


def test_a_swept_text_must_stand_out_among_the_survivors_as_well() -> None:
    names = tuple(map(str, range(48)))
    p: dict[str, float] = dict.fromkeys(names, 1e-9)
    crowd: dict[str, float | None] = {name: 30 - 0.1 * i for i, name in enumerate(names)}
    groups = [CandidateGroup("v", names, 400, SWEEP)]
    assert min(adjusted(p, groups, crowd).values()) > 0.01
    found = adjusted(p, groups, crowd | {"0": 900.0})
    assert [name for name in names if found[name] < 0.01] == ["0"]
    assert adjusted(p | {"0": 0.2}, groups, crowd | {"0": 900.0})["0"] == 0.2, "it must do more than harmless texts, besides"
    listed = adjusted(p, [CandidateGroup("list", names, 400)], {})
    assert max(listed.values()) < 0.01, "what was listed has no survivors to compare with"


def test_how_many_were_swept_matters_to_no_text_that_stands_apart() -> None:
    p, joint = dict.fromkeys(map(str, range(48)), 1e-3), {str(i): 900.0 if i == 0 else 5.0 - 0.05 * i for i in range(48)}
    small, large = (adjusted(p, [CandidateGroup("v", tuple(p), size, SWEEP)], joint)["0"] for size in (400, 10**6))
    assert small == large <= 0.01


def test_what_was_not_followed_is_below_what_was() -> None:
    joint: dict[str, float | None] = {str(i): None for i in range(40)} | {"0": 900.0}
    found = adjusted(dict.fromkeys(joint, 1e-9), [CandidateGroup("v", tuple(joint), 400, SWEEP)], joint)
    assert [text for text, value in found.items() if value < 0.01] == ["0"]


def test_equal_survivors_are_no_error() -> None:
    assert expected(0.5, [0.5] * 20) == 1.0


def test_kin_among_the_survivors_hide_nothing_where_pairs_were_drawn() -> None:
    """Thirty of sixty-four survivors far out: by their own tail none stands out, by that of random pairs all do."""
    rng = np.random.default_rng(4)
    joint: dict[str, float | None] = {str(i): 200.0 + i if i < 30 else 3.0 + rng.exponential() for i in range(64)}
    p = {text: 1e-9 if (value or 0.0) > 9 else 0.5 for text, value in joint.items()}
    drawn: dict[str, float | None] = {f"drawn {i}": 4 * rng.exponential() for i in range(128)}
    sweep = SweepRecord(name="pairs", swept=10**6, adjusted_for=10**6, survivors=64, forward_passes=1, rounds=(), unreachable=())
    alone, beside = (
        adjusted(p, [CandidateGroup("pairs", tuple(p), 10**6, sweep, drawn=texts)], joint | drawn) for texts in ((), tuple(drawn))
    )
    assert min(alone.values()) > 0.01
    assert sum(value <= 0.01 for value in beside.values()) == 30


def test_pairs_at_random_bound_how_many_would_score_so_by_chance() -> None:
    """The extremes of a hundred thousand harmless pairs are expected once, whatever a text's own p says."""
    rng, alarms = np.random.default_rng(5), 0
    for _ in range(200):
        top = np.array([4 * rng.exponential(size=10**5).max()])
        alarms += beyond(top, (4 * rng.exponential(size=128)).tolist(), 10**5)[0] <= 0.05
    assert alarms <= 25


def test_a_trigger_that_was_drawn_by_chance_spoils_no_tail() -> None:
    drawn = [*(4 * np.random.default_rng(6).exponential(size=127)), 500.0]
    assert beyond(np.array([500.0]), drawn, 10**6)[0] <= 0.01


@pytest.mark.parametrize(("drawn", "told"), [(31, False), (32, True)])
def test_texts_drawn_at_random_give_the_tail_where_they_are_enough(drawn: int, told: bool) -> None:
    joint: dict[str, float | None] = {"a": 40.0} | {f"drawn {i}": 30.0 + i for i in range(drawn)}
    group = CandidateGroup("v", ("a",), 400, SWEEP, drawn=tuple(joint)[1:])
    assert (adjusted({"a": 1e-9}, [group], joint)["a"] > 0.5) == told


def test_a_sweep_that_had_nothing_to_try_judges_nothing() -> None:
    assert adjusted({"a": 0.5}, [CandidateGroup("list", ("a",), 1), CandidateGroup("joined words", (), 0)], {}) == {"a": 1.0}


@pytest.mark.parametrize(("survivors", "told"), [(15, False), (16, True)])
def test_survivors_are_compared_with_each_other_where_they_are_enough(survivors: int, told: bool) -> None:
    joint: dict[str, float | None] = {str(i): 9 - 0.01 * i for i in range(survivors)}
    found = adjusted(dict.fromkeys(joint, 1e-9), [CandidateGroup("v", tuple(joint), 400, SWEEP)], joint)
    assert (max(found.values()) == 1) == told
