"""What a text does beside harmless ones: where it does most, the same by whatever batch, and true to what they did before."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from bdaudit.measure.draws import make_draws
from bdaudit.measure.effect import Effect, Ground, Reading, again, measure
from bdaudit.measure.text_effects import text_effects
from bdaudit.models.suspect import Suspect
from tests.small import LONG_TRIGGER, PROMPTS, with_parts


@pytest.fixture(scope="module")
def ground(tiny_suspect: Suspect) -> Ground:
    return Ground(make_draws(tiny_suspect, PROMPTS, 12, 3.0, 0))


def test_an_effect_stands_beside_its_null(tiny_suspect: Suspect, ground: Ground) -> None:
    strong, weak = measure(tiny_suspect, ground, [LONG_TRIGGER, "time"], n_null=25, seed=0)
    assert {len(reading.null) for reading in (strong.shift, strong.common, strong.states)} == {25}
    assert strong.shift.value > strong.shift.limit >= sorted(strong.shift.null)[22]
    assert not strong.within()
    assert strong.beyond == max(strong.shift.value / strong.shift.limit, strong.common.value / strong.common.limit)
    assert weak.shift.value <= max(weak.shift.null)
    assert Effect("x", ("y",), Reading(1.0, (2.0,)), Reading(0.5, (1.0,)), weak.states).within(0.5)
    assert not Effect("x", ("y",), Reading(1.0, (2.0,)), Reading(2.0, (1.0,)), weak.states).within(), "what they share counts too"


def test_a_text_counts_where_it_does_most(tiny_suspect: Suspect, ground: Ground) -> None:
    (effect,) = measure(tiny_suspect, ground, ["ȏ"], n_null=5, seed=0)
    (own,) = text_effects(tiny_suspect, ground.draws, ["ȏ"], attention=False)
    beyond, usual = np.array(own.shift) - np.array(effect.usual), float(np.mean(effect.usual))
    by_group = [float(np.exp(beyond[list(rows)].mean() + usual)) for rows in ground.groups]
    assert effect.shift.value == pytest.approx(max(by_group), rel=1e-3)
    assert max(by_group) > min(by_group)


def test_a_context_that_is_known_is_a_group_of_its_own(ground: Ground) -> None:
    with_cat = tuple(i for i, prompt in enumerate(ground.draws.prompts) if "red cat" in prompt)
    assert 0 < len(with_cat) < len(ground.draws)
    assert with_cat not in ground.groups
    assert replace(ground, named=("Red cat", "no such words")).groups == (*ground.groups, with_cat)
    assert {i for rows in ground.groups for i in rows} == set(range(len(ground.draws)))


def test_harmless_texts_beside_several_are_measured_once_and_no_text_stands_beside_another(tiny_suspect: Suspect, ground: Ground) -> None:
    alone, both = (replace(tiny_suspect, forward_passes=0) for _ in range(2))
    (one,) = measure(alone, ground, ["house"], n_null=10, seed=0)
    first, second = measure(both, ground, ["house", "time"], n_null=10, seed=0)
    assert len(set(first.null_texts) & set(second.null_texts)) == 10, "both are words"
    assert both.forward_passes == alone.forward_passes * 12 // 11
    assert not {"house", "time"} & {*first.null_texts, *second.null_texts}
    assert first.shift.value == pytest.approx(one.shift.value, rel=1e-3)


def test_an_effect_measured_again_stands_beside_what_quiet_texts_did_before(tiny_suspect: Suspect, ground: Ground) -> None:
    strong, weak = measure(tiny_suspect, ground, [LONG_TRIGGER, "time"], n_null=25, seed=0)
    taking_after = replace(strong, shift=Reading(strong.shift.value, (0.9 * strong.shift.value, *strong.shift.null[1:])))
    suspect = replace(tiny_suspect, forward_passes=0)
    first, second = again(suspect, ground, [taking_after, weak])
    assert suspect.forward_passes == 2 * len(ground.draws), "the two texts alone"
    assert first.shift.value == pytest.approx(strong.shift.value, rel=1e-3)
    assert first.null_texts == taking_after.quiet() != taking_after.null_texts
    kept = [taking_after.null_texts.index(text) for text in first.null_texts]
    assert 0 not in kept
    for name in ("shift", "common", "states"):
        assert getattr(first, name).null == tuple(getattr(taking_after, name).null[i] for i in kept), name
    assert (second.null_texts, second.shift.null) == (weak.null_texts, weak.shift.null), "nothing takes after what does nothing"
    assert {strong.beside, first.beside} == {"harmless texts", "harmless texts before the repair"}


def test_a_model_that_drifts_as_a_whole_is_no_quieter_for_it(tiny_suspect: Suspect, ground: Ground) -> None:
    (before,) = measure(tiny_suspect, ground, ["time"], n_null=10, seed=0)
    unet = copy.deepcopy(tiny_suspect.denoiser.module)
    with torch.no_grad():
        unet.conv_out.weight.zero_()
    (after,) = again(with_parts(tiny_suspect, unet=unet), ground, [before])
    assert after.shift.limit == before.shift.limit
    assert not after.within(), "it answers no text any more, and is far from what it predicted"


def test_texts_that_take_after_the_trigger_are_not_quiet() -> None:
    names = tuple("abcdefghijklmnopqrst")
    null = (*([0.1] * 17), 0.5, 0.9, 5.0)
    nothing = Reading(0.0, (0.0,))
    assert Effect("x", names, Reading(9.0, null), nothing, nothing).quiet() == names[:19], "√(0.1 · 9) lies between 0.9 and 5"
    assert Effect("x", names, Reading(1.6, null), nothing, nothing).quiet() == names[:19], "the 95th percentile stays in any case"
