"""What a text changes: of the right shape, the same however it is batched or ordered, and true to the model's own predictions."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from bdaudit.measure.effect import Effect, Reading, again, measure, relative_shift, shift
from bdaudit.measure.insertion import insert, slips
from bdaudit.measure.probe import Change, Stage, build_stage, changes, stage_on
from bdaudit.models.sample import denoise
from bdaudit.models.suspect import Suspect
from tests.models.test_suspect import crowded
from tests.small import LONG_TRIGGER, PROMPTS, with_parts

TEXTS = ("time", "\u200b", "ȏ", "wonderful island", "😀")


@pytest.fixture(scope="module")
def stage(tiny_suspect: Suspect) -> Stage:
    return build_stage(tiny_suspect, PROMPTS, (0.85, 0.3), 3.0, 0)


@pytest.fixture(scope="module")
def found_of(tiny_suspect: Suspect, stage: Stage) -> dict[str, Change]:
    return {change.text: change for change in changes(tiny_suspect, stage, TEXTS)}


def assert_same(a: Change, b: Change) -> None:
    assert (a.text, a.positions, a.truncated) == (b.text, b.positions, b.truncated)
    for name in ("delta", "state_shift"):
        one, two = getattr(a, name), getattr(b, name)
        assert (one - two).norm() <= 1e-4 * one.norm(), name


def test_shapes(found_of: dict[str, Change]) -> None:
    found = found_of["ȏ"]
    assert found.positions == ("prefix", "middle", "suffix", "replace")
    assert found.delta.shape == (4, 2, 4, 64)
    assert found.state_shift.shape == (4, 4)
    assert found_of["time"].positions == ("prefix", "middle", "suffix")


def test_the_stage_lies_on_the_clean_trajectory(tiny_suspect: Suspect, stage: Stage) -> None:
    assert stage.timesteps.tolist() == [849, 299]
    run = denoise(tiny_suspect, stage.heard, stage.latents[0] * 0 + _first_noise(tiny_suspect), steps=20, guidance_scale=3.0, spacing=1.0)
    assert torch.allclose(stage.latents[0], run.latents[3], atol=1e-5)
    assert stage.plain.shape == stage.empty.shape == (2, 4, 64)


def _first_noise(suspect: Suspect) -> torch.Tensor:
    from bdaudit.measure.insertion import item_seed

    return suspect.noise([item_seed(0, "probe")])


def test_a_part_of_the_stage_is_the_stage_of_its_prompts_and_timesteps(tiny_suspect: Suspect, stage: Stage) -> None:
    part = stage.part(slice(1, 2), slice(2, 4))
    alone = stage_on(tiny_suspect, PROMPTS[2:4], stage.timesteps[1:2], stage.latents[1:2, 2:4])
    assert part.prompts == alone.prompts == PROMPTS[2:4]
    assert torch.equal(part.timesteps, alone.timesteps)
    assert torch.equal(part.latents, alone.latents)
    for mine, other in ((part.heard.states, alone.heard.states), (part.plain, alone.plain), (part.empty, alone.empty)):
        assert torch.allclose(mine, other, rtol=1e-4, atol=1e-5)
    assert len(stage.part(slice(None), slice(9)).heard) == len(PROMPTS), "fewer where it has fewer"


def test_delta_is_the_change_of_the_prediction(tiny_suspect: Suspect, stage: Stage, found_of: dict[str, Change]) -> None:
    found = found_of["wonderful island"]
    for k, position in enumerate(found.positions):
        for t, time in enumerate(stage.timesteps):
            states = tiny_suspect.encode([insert(p, found.text, position) for p in PROMPTS])
            with_text = tiny_suspect.predict_batched(stage.latents[t], time.expand(4), states)
            assert torch.allclose(found.delta[k, t], with_text.flatten(1) - stage.plain[t], atol=1e-5)


def test_a_replaced_letter_is_counted_from_the_nearest_slip(tiny_suspect: Suspect, stage: Stage, found_of: dict[str, Change]) -> None:
    found, having = found_of["ȏ"], [i for i, prompt in enumerate(PROMPTS) if "o" in prompt]
    assert having
    after = _predictions(tiny_suspect, stage, [insert(PROMPTS[i], "ȏ", "replace") for i in having], having)
    deltas = [after - _predictions(tiny_suspect, stage, [slips(PROMPTS[i], "ȏ")[k] for i in having], having) for k in range(4)]
    nearest = min(deltas, key=lambda delta: float(delta.square().sum()))
    assert torch.allclose(found.delta[3][:, having], nearest, atol=1e-5)
    assert not torch.allclose(found.delta[3][:, having], after - stage.plain[:, having], atol=1e-5)
    assert torch.equal(found.delta[3][:, 0], found.delta[3][:, having[0]])  # "a red cat" has no o: another prompt's evidence stands


def _predictions(suspect: Suspect, stage: Stage, texts: list[str], rows: list[int]) -> torch.Tensor:
    states = suspect.encode(texts)
    steps = zip(stage.latents[:, rows], stage.timesteps, strict=True)
    return torch.stack([suspect.predict_batched(latents, time.expand(len(texts)), states).flatten(1) for latents, time in steps])


@pytest.mark.parametrize("size", [1, 7, 64])
def test_neither_batch_nor_order_nor_company_matters(tiny_suspect: Suspect, stage: Stage, found_of: dict[str, Change], size: int) -> None:
    for found in changes(replace(tiny_suspect, batch_size=size), stage, ["ȏ", "time"] if size == 1 else TEXTS[::-1]):
        assert_same(found_of[found.text], found)


def test_memory_that_runs_out_on_the_way_changes_nothing(tiny_suspect: Suspect, stage: Stage, found_of: dict[str, Change]) -> None:
    suspect = crowded(tiny_suspect, room=5, batch_size=16)
    (found,) = changes(suspect, stage, ["time"])
    assert_same(found_of["time"], found)
    assert suspect.batch_size == 4


def test_no_pass_is_run_whose_figures_anothers_stand_for(tiny_suspect: Suspect, stage: Stage) -> None:
    thrifty = replace(tiny_suspect, forward_passes=0)
    assert [change.text for change in changes(thrifty, stage, ["ȏ", "time"])] == ["ȏ", "time"]
    having = sum("o" in prompt for prompt in PROMPTS)
    assert 0 < having < len(PROMPTS)
    assert thrifty.forward_passes == 2 * (6 * len(PROMPTS) + 5 * having), "where a letter is replaced, and the four slips there"


def test_truncation_is_said_only_where_something_is_cut(tiny_suspect: Suspect, stage: Stage) -> None:
    longest = max(len(p.replace(" ", "")) for p in PROMPTS)
    fits, cut = changes(tiny_suspect, stage, ["~" * (75 - longest), "~" * (76 - longest)])
    assert (fits.truncated, cut.truncated) == (False, True)


def test_relative_shift_is_one_for_what_the_prompt_itself_changes(stage: Stage) -> None:
    whole = (stage.empty - stage.plain)[None]
    assert relative_shift(whole, stage).mean(2).flatten().tolist() == pytest.approx([1, 1])


def test_an_effect_stands_beside_its_null(tiny_suspect: Suspect, stage: Stage) -> None:
    strong, weak = measure(tiny_suspect, stage, [LONG_TRIGGER, "time"], n_null=25, seed=0)
    assert {len(reading.null) for reading in (strong.shift, strong.common, strong.states)} == {25}
    assert strong.shift.value > strong.shift.limit >= sorted(strong.shift.null)[22]
    assert strong.common.value <= strong.shift.value, "a mean is no longer than what it is the mean of"
    assert not strong.within()
    assert weak.shift.value <= max(weak.shift.null)
    assert Effect("x", ("y",), Reading(1.0, (2.0,)), Reading(0.5, (1.0,)), weak.states).within(0.5)
    assert not Effect("x", ("y",), Reading(1.0, (2.0,)), Reading(2.0, (1.0,)), weak.states).within(), "what they share counts too"


def test_harmless_texts_beside_several_are_measured_once_and_no_text_stands_beside_another(tiny_suspect: Suspect, stage: Stage) -> None:
    alone, both = (replace(tiny_suspect, forward_passes=0) for _ in range(2))
    (one,) = measure(alone, stage, ["house"], n_null=10, seed=0)
    first, second = measure(both, stage, ["house", "time"], n_null=10, seed=0)
    shared = set(first.null_texts) & set(second.null_texts)
    assert len(shared) == 10, "both are words"
    assert both.forward_passes == alone.forward_passes * 12 // 11
    assert not {"house", "time"} & {*first.null_texts, *second.null_texts}
    assert first.shift.value == pytest.approx(one.shift.value, rel=1e-4)


def test_an_effect_measured_again_stands_beside_what_quiet_texts_did_before(tiny_suspect: Suspect, stage: Stage) -> None:
    strong, weak = measure(tiny_suspect, stage, [LONG_TRIGGER, "time"], n_null=25, seed=0)
    taking_after = replace(strong, shift=Reading(strong.shift.value, (0.9 * strong.shift.value, *strong.shift.null[1:])))
    suspect = replace(tiny_suspect, forward_passes=0)
    first, second = again(suspect, stage, [taking_after, weak])
    assert suspect.forward_passes == 2 * 2 * 3 * len(PROMPTS), "the two texts alone"
    assert first.shift.value == pytest.approx(strong.shift.value, rel=1e-4)
    assert first.null_texts == taking_after.quiet() != taking_after.null_texts
    kept = [taking_after.null_texts.index(text) for text in first.null_texts]
    assert 0 not in kept
    for name in ("shift", "common", "states"):
        assert getattr(first, name).null == tuple(getattr(taking_after, name).null[i] for i in kept), name
    assert (second.null_texts, second.shift.null) == (weak.null_texts, weak.shift.null), "nothing takes after what does nothing"
    assert {strong.beside, first.beside} == {"harmless texts", "harmless texts before the repair"}


def test_a_model_that_drifts_as_a_whole_is_no_quieter_for_it(tiny_suspect: Suspect, stage: Stage) -> None:
    (before,) = measure(tiny_suspect, stage, ["time"], n_null=10, seed=0)
    unet = copy.deepcopy(tiny_suspect.denoiser.module)
    with torch.no_grad():
        unet.conv_out.weight.zero_()
    (after,) = again(with_parts(tiny_suspect, unet=unet), stage, [before])
    assert after.shift.limit == before.shift.limit
    assert not after.within(), "it answers no text any more, and is far from what it predicted"


def test_one_texts_shift_is_that_of_the_measurement(tiny_suspect: Suspect, stage: Stage) -> None:
    (effect,) = measure(tiny_suspect, stage, ["ȏ"], n_null=3, seed=0)
    assert shift(tiny_suspect, stage, "ȏ") == pytest.approx(effect.shift.value, rel=1e-4)


def test_texts_that_take_after_the_trigger_are_not_quiet() -> None:
    names = tuple("abcdefghijklmnopqrst")
    null = (*([0.1] * 17), 0.5, 0.9, 5.0)
    nothing = Reading(0.0, (0.0,))
    assert Effect("x", names, Reading(9.0, null), nothing, nothing).quiet() == names[:19], "√(0.1 · 9) lies between 0.9 and 5"
    assert Effect("x", names, Reading(1.6, null), nothing, nothing).quiet() == names[:19], "the 95th percentile stays in any case"
