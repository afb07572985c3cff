"""Cleaning runs on the small model: order, schedule, what moves, what is rejected, what is chosen."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import nn

from bdaudit.models.suspect import Suspect
from bdaudit.models.tokens import token_ids
from bdaudit.records import CanaryLeft, CleaningPoint, Estimate
from bdaudit.unlearn.clean import canary as canaries
from bdaudit.unlearn.clean import train
from bdaudit.unlearn.clean.towers import Towers, Vision
from bdaudit.unlearn.clean.train import Judge, Material, batches, choose, clean, points, schedule, stretched, sweep

CAPTIONS = [f"{size} {colour} {what} number {i}" for i in range(6) for size in ("big", "old") for colour in ("red", "dark")
            for what in ("cat", "dog", "house", "sea")]  # fmt: skip


def towers_of(suspect: Suspect, seeing: bool = False) -> Towers:
    vision = None
    if seeing:
        torch.manual_seed(0)
        visual = nn.Sequential(nn.Flatten(), nn.Linear(48, 8)).requires_grad_(False)
        vision = Vision(visual, nn.Parameter(torch.eye(8), requires_grad=False), torch.full((1, 3, 1, 1), 0.5), torch.ones(1, 3, 1, 1))
    return Towers(suspect.text.main.encoder, int(suspect.tokenizer.eos_token_id), vision)


def material_of(suspect: Suspect, seeing: bool = False) -> Material:
    shown = torch.rand(len(CAPTIONS), 3, 4, 4, generator=torch.Generator().manual_seed(1))
    return Material(
        captions=CAPTIONS, rows=range(32, len(CAPTIONS)), held=range(32), strange=("zqx", "~~"),
        ids=lambda texts: token_ids(suspect.tokenizer, texts), pictures=(lambda rows: shown[list(rows)]) if seeing else None,
    )  # fmt: skip


def no_canary(suspect: Suspect) -> canaries.Canary:
    ids = token_ids(suspect.tokenizer, CAPTIONS[:6])
    inputs = canaries.Inputs(ids[:4], ids[:4])
    return canaries.Canary("x", "y", ids[5:6], inputs, ids[4:5], inputs)


def test_every_row_comes_once_before_any_comes_again() -> None:
    found = list(batches(range(192), 6, seed=0))
    assert all(len(batch) == 64 for batch in found)
    assert all(sorted(row for batch in half for row in batch) == list(range(192)) for half in (found[:3], found[3:]))
    assert found == list(batches(range(192), 6, seed=0))
    assert [len(set(batch)) for batch in batches(range(5), 3, seed=0)] == [5, 5, 5]


def test_the_rate_warms_up_and_falls_to_nothing() -> None:
    assert [schedule(step, 400) for step in (0, 49)] == [0.02, 1.0]
    assert schedule(225, 400) == pytest.approx(0.5)
    assert 0 < schedule(399, 400) < 0.001
    assert max(schedule(step, 8) for step in range(8)) == 1.0, "a short run warms up as well"
    assert points(400) == set(range(40, 401, 40))
    assert points(3) == {1, 2, 3}


@pytest.mark.parametrize("seeing", [False, True])
def test_a_run_moves_what_it_should_and_is_the_same_again(fresh_suspect: Suspect, seeing: bool) -> None:
    towers, material = towers_of(fresh_suspect, seeing), replace(material_of(fresh_suspect, seeing), strange=())
    start = towers.snapshot()
    curves, ends = [], []
    for _ in range(2):
        towers.restore(start)
        curves.append(clean(towers, material, 1e-3, 4, 7, lambda step: False, nullcontext))
        ends.append(towers.snapshot())
    assert curves[0] == curves[1]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in start)
    moved = {name for name in start if not torch.equal(start[name], ends[0][name])}
    own = {"text"} | ({"visual", "projection", "log_scale"} if seeing else set())
    assert {name.split(".")[0] for name in moved} == own
    assert set(curves[0][0].terms) == {"text", "anchor"} | ({"pairs", "picture"} if seeing else set())
    assert curves[0][0].terms["anchor"] == 0
    assert curves[0][-1].terms["anchor"] > 0


def test_a_caption_with_a_text_put_in_should_have_its_own_states(tiny_suspect: Suspect) -> None:
    ids = token_ids(tiny_suspect.tokenizer, ["ab cd", "ab cd"])
    changed = token_ids(tiny_suspect.tokenizer, ["~~ ab cd", "ab cd"])
    states = torch.arange(77.0)[None, :, None].repeat(2, 1, 1)
    found = stretched(states, ids, changed)[:, :, 0].tolist()
    assert found[0][:10] == [0, 0, 0, 1, 2, 3, 4, 5, 6, 7]
    assert found[1] == list(range(77))
    assert stretched(states[:0], ids[:0], changed[:0]).shape == (0, 77, 1)


def test_the_anchor_pulls_the_states_back(fresh_suspect: Suspect, monkeypatch: pytest.MonkeyPatch) -> None:
    towers, material = towers_of(fresh_suspect), material_of(fresh_suspect)
    start, moved = towers.snapshot(), []
    ids = material.ids(CAPTIONS[:16])
    with torch.no_grad():
        before = towers.states(ids)
    for weight in (0.0, 100.0):
        monkeypatch.setattr(train, "ANCHOR", weight)
        towers.restore(start)
        clean(towers, material, 1e-2, 30, 0, lambda step: False, nullcontext)
        with torch.no_grad():
            moved.append(float((towers.states(ids) - before).square().mean()))
    assert moved[1] < moved[0] / 2


def test_a_collapsed_model_is_rejected(fresh_suspect: Suspect) -> None:
    towers, material = towers_of(fresh_suspect), material_of(fresh_suspect)
    judge = Judge(towers, material)
    assert judge.start.accuracy.value == 1
    assert judge.rejected(judge.standing()) == ""
    with torch.no_grad():
        for p in towers.parameters().values():
            p.zero_()
    now = judge.standing()
    assert now.accuracy.value == 0
    assert "accuracy fell from 1.000 to 0.000" in judge.rejected(now)
    assert "collapsed" in judge.rejected(replace(now, accuracy=judge.start.accuracy))


def test_the_spread_is_the_variance_over_captions(tiny_suspect: Suspect) -> None:
    towers, material = towers_of(tiny_suspect), material_of(tiny_suspect)
    with torch.no_grad():
        states = towers.states(material.ids(CAPTIONS[:32]))
    expected = (states - states.mean(0)).square().mean()
    assert Judge(towers, material).start.spread == pytest.approx(float(expected), rel=1e-3)


def test_a_rate_that_destroys_the_model_is_rejected_and_given_up(fresh_suspect: Suspect) -> None:
    towers, material = towers_of(fresh_suspect), material_of(fresh_suspect)
    found, broke = sweep(towers, material, (no_canary(fresh_suspect),), towers.states, 5.0, 60, 0, nullcontext)
    assert found[-1].rejected or "finite" in broke
    assert broke
    assert choose(found[-1:]) == -1


def test_weights_that_are_no_figures_any_more_end_a_rate(fresh_suspect: Suspect, monkeypatch: pytest.MonkeyPatch) -> None:
    towers, material = towers_of(fresh_suspect), material_of(fresh_suspect)
    some, take = next(iter(towers.parameters().values())), torch.optim.AdamW.step

    def step(optimiser: torch.optim.AdamW) -> None:
        take(optimiser)
        some.data.fill_(torch.nan)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    found, broke = sweep(towers, material, (no_canary(fresh_suspect),), towers.states, 1e-3, 1, 0, nullcontext)
    assert (found, broke) == ([], train.DIVERGED)


def test_a_point_shows_each_canary_and_counts_the_stickiest(fresh_suspect: Suspect) -> None:
    towers, material, harmless = towers_of(fresh_suspect), material_of(fresh_suspect), no_canary(fresh_suspect)
    away = canaries.Inputs(harmless.measuring.clean, harmless.target.expand(4, -1))
    works = replace(harmless, measuring=away, kind="works")
    for planted in ((harmless, works), (works, harmless)):
        found, _ = sweep(towers, material, planted, towers.states, 1e-6, 1, 0, nullcontext)
        assert [c.kind for c in found[0].canaries] == [c.kind for c in planted]
        by_kind = {c.kind: c for c in found[0].canaries}
        assert (by_kind["trigger"].rate.value, by_kind["works"].rate.value) == (0.0, 1.0)
        assert found[0].residue == by_kind["works"].residue
        assert choose(found) == -1, "one that works is enough"


def test_a_strange_text_is_taught_to_mean_nothing(fresh_suspect: Suspect, monkeypatch: pytest.MonkeyPatch) -> None:
    towers, material = towers_of(fresh_suspect), material_of(fresh_suspect)
    start, ids = towers.snapshot(), material.ids(CAPTIONS[:16])
    changed = material.ids([f"zqx {caption}" for caption in CAPTIONS[:16]])
    with torch.no_grad():
        wanted = stretched(towers.states(ids), ids, changed)

    def far() -> float:
        with torch.no_grad():
            return float((towers.states(changed) - wanted).square().mean())

    before, after = far(), []
    for weight in (0.0, 20.0):
        monkeypatch.setattr(train, "PUT_IN", weight)
        towers.restore(start)
        curve = clean(towers, material, 1e-2, 40, 0, lambda step: False, nullcontext)
        after.append(far())
    assert after[1] < 0.7 * after[0]
    assert after[1] < 0.7 * before
    assert curve[-1].terms["put in"] < curve[0].terms["put in"]


def point(residue: float, high: float = 0.05, rejected: str = "") -> CleaningPoint:
    def of(value: float, high: float) -> Estimate:
        return Estimate(value=value, low=0.0, high=high, n=64, method="")

    left = tuple(CanaryLeft(kind=kind, rate=of(0.0, end), residue=of(residue, 1.0)) for kind, end in (("gone", 0.0), ("sticks", high)))
    return CleaningPoint(
        rate=1e-3, step=10, passes=1.0, accuracy=of(0.9, 1.0), residue=of(residue, 1.0), spread=1.0, canaries=left, rejected=rejected
    )


def test_a_canary_is_gone_at_a_tenth_and_not_above() -> None:
    assert choose([point(0.1, high=0.10)]) == 0
    assert choose([point(0.1, high=0.1001)]) == -1


@pytest.mark.parametrize(
    ("accuracy", "spread", "said"),
    [(0.97, 0.5, ""), (0.9699, 0.5, "accuracy fell from 1.000 to 0.970"), (0.97, 0.499, "collapsed: captions lie apart by 0.50")],
)
def test_what_accuracy_and_spread_may_lose(tiny_suspect: Suspect, accuracy: float, spread: float, said: str) -> None:
    judge = Judge(towers_of(tiny_suspect), material_of(tiny_suspect))
    assert judge.start.accuracy.value == 1
    now = replace(judge.start, accuracy=replace(judge.start.accuracy, value=accuracy), spread=spread * judge.start.spread)
    assert judge.rejected(now).startswith(said)
    assert bool(judge.rejected(now)) is bool(said)


def test_the_choice_leaves_least_of_the_canary_at_no_loss() -> None:
    found = [point(0.3), point(0.1), point(0.05, high=0.2), point(-0.1, rejected="accuracy fell"), point(0.2)]
    assert choose(found) == 1
    assert choose(found[2:4]) == -1
    assert choose([]) == -1
